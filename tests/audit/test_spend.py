from __future__ import annotations

import math
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pytest

from audit.canonical import decimal, dumps, sha256
from audit.entry import decode_entry, encode_entry
from audit.errors import EntryRefused, VerificationFailed
from audit.log import AuditLog
from audit.spend import ADVERSARIES, SpendChecker
from privacy.accountant import Adversary
from privacy.accountant import spend as product_spend
from privacy.events import event_from_json
from tests.audit import scenario
from tests.audit.figures import DELTA, SHARES, figures, granted, oracle, released, verify
from tests.audit.scenario import event, intent, release

NON_PRIVATE = {"kind": "non_private", "unit": "task", "relation": "add_remove", "reason": "test"}


def one_round(directory: Path, spend: Any, **intent_changes: Any) -> int:
    """A log of one release with these figures; the index of the release."""
    log = granted(directory)
    index = released(log, 1, spend, **intent_changes)
    log.close()
    return index


def test_a_run_s_figures_are_recomputed(tmp_path: Path) -> None:
    """Two releases and, between them, an opened round that released nothing but stays charged."""
    log = scenario.start(tmp_path)
    log.append("budget-granted", scenario.grant())
    released(log, 1, figures(1))
    opened = log.append("round-intent", intent(2)).digest.hex()
    log.append("round-abort", scenario.abort(2, intent=opened, charged=True))
    log.append("round-abort", scenario.abort(2, 1))
    log.append("round-abort", scenario.abort(2, 2, charged=True, event=event()))
    opened = log.append("round-intent", intent(2, 3)).digest.hex()
    log.append("round-release", release(2, opened, 3, spend=figures(4)))
    log.close()
    verified = verify(tmp_path)
    assert (verified.released, verified.aborted) == (2, 3)
    assert not any("spend" in text for text in verified.not_checked)


@pytest.mark.parametrize("name", ADVERSARIES)
@pytest.mark.parametrize("error", [-1e-6, -0.5, 1e-4, 3.0])
def test_a_figure_too_small_or_too_large_is_refused(
    tmp_path: Path, name: str, error: float
) -> None:
    wrong = decimal(oracle(1, SHARES[name]) + error)
    index = one_round(tmp_path, figures(1, **{name: wrong}))
    with pytest.raises(VerificationFailed, match=name) as caught:
        verify(tmp_path)
    assert caught.value.index == index


def test_a_participant_subtracts_its_own_share_though_nobody_colludes(tmp_path: Path) -> None:
    changes = {"aggregator_and_colluders": decimal(oracle(1, 7))}
    alone = event(max_colluders=0)
    one_round(
        tmp_path / "right", figures(1, participants=decimal(oracle(1, 6)), **changes), event=alone
    )
    assert verify(tmp_path / "right").released == 1
    one_round(
        tmp_path / "old", figures(1, participants=decimal(oracle(1, 7)), **changes), event=alone
    )
    with pytest.raises(VerificationFailed, match="participants: states epsilon"):
        verify(tmp_path / "old")


@pytest.mark.parametrize("error", [-1e-12, 1e-12, 5e-7])
def test_the_order_of_additions_makes_no_difference(tmp_path: Path, error: float) -> None:
    one_round(tmp_path, figures(1, aggregator=decimal(oracle(1, 7) + error)))
    assert verify(tmp_path).released == 1


def test_bugs_of_other_accountants_are_caught(tmp_path: Path) -> None:
    """Noise sized for invited clients; an accountant started afresh each round."""
    invited = decimal(oracle(1, 8))
    one_round(tmp_path / "invited", figures(1, aggregator=invited))
    log = granted(tmp_path / "afresh")
    for round_ in (1, 2):
        opened = log.append("round-intent", intent(round_)).digest.hex()
        log.append("round-release", release(round_, opened, spend=figures(1)))
    log.close()
    for directory, index in (("invited", 3), ("afresh", 5)):
        with pytest.raises(VerificationFailed, match="states epsilon") as caught:
            verify(tmp_path / directory)
        assert caught.value.index == index


def test_every_adversary_must_have_its_figure(tmp_path: Path) -> None:
    fewer = {name: figure for name, figure in figures(1).items() if name != "broken_sum"}
    unnamed = {**figures(1), "somebody": {"rdp": "1.0"}}
    other = {**figures(1), "aggregator": {"prv": "1.0"}}
    for number, spend in enumerate((fewer, unnamed, other, {})):
        one_round(tmp_path / str(number), spend)
        with pytest.raises(VerificationFailed) as caught:
            verify(tmp_path / str(number))
        assert caught.value.index == 3


def test_a_round_without_privacy_costs_infinity(tmp_path: Path) -> None:
    """No grant covers it; where none is claimed, its figures say so."""
    infinite = {name: {"rdp": "inf"} for name in ADVERSARIES}
    for name, spend in (("right", infinite), ("wrong", figures(1))):
        log = scenario.start(tmp_path / name)
        released(log, 1, spend, event=NON_PRIVATE)
        log.close()
    assert verify(tmp_path / "right").released == 1
    one_round(tmp_path / "other way", infinite)
    for name in ("wrong", "other way"):
        with pytest.raises(VerificationFailed, match="states epsilon"):
            verify(tmp_path / name)
    one_round(tmp_path / "granted", infinite, event=NON_PRIVATE)
    with pytest.raises(VerificationFailed, match="epsilon inf exceeds granted"):
        verify(tmp_path / "granted")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "laplace"}, "is not known"),
        ({"unit": 3}, "unit and relation"),
        ({"relation": None}, "unit and relation"),
        ({"kind": "gaussian_steps"}, "are missing or unknown"),
        ({"kind": ["skellam_round"]}, "is not known"),
        ({"rate": "0.0"}, "rate"),
        ({"rate": "1.5"}, "rate"),
        ({"rate": "1e-07"}, "rate"),
        ({"rate": 1}, "rate"),
        ({"unit": "person"}, "allowed are"),
        ({"relation": "replace_one"}, "allowed are"),
        ({"max_participations": 3}, "max_participations 3 for unit task"),
        ({"max_participations": 0}, "max_participations 0"),
        ({"unit": "client", "relation": "zero_out", "rate": "0.5"}, "participation is seen"),
        (
            {"unit": "client", "relation": "zero_out", "max_participations": "2"},
            "max_participations '2'",
        ),
        ({"kind": "discrete_gaussian_round", "share_variance": "0.2"}, "nothing is proved"),
        ({"extra": 1}, "extra"),
        ({"l1": 7999}, "below what l2"),
        ({"l1": "8000"}, "out of range"),
        ({"max_colluders": 7}, "7 colluders"),
        ({"max_colluders": -1}, "out of range"),
        ({"clients": 6}, "6 in all"),
        ({"dimension": 0}, "out of range"),
        ({"l2": 399, "l1": 8000}, "plan has 400"),
        ({"share_variance": "160001.0"}, "plan has"),
        ({"share_variance": "-1.0"}, "decimal"),
        ({"share_variance": "1e-200"}, "decimal"),
        ({"share_variance": 160000}, "decimal"),
        ({"share_variance": "much"}, "not a decimal"),
    ],
)
def test_a_strange_event_is_refused_at_its_intent(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    one_round(tmp_path, figures(1), event=event(**changes))
    with pytest.raises(VerificationFailed, match=why) as caught:
        verify(tmp_path)
    assert caught.value.index == 2


def test_a_single_survivor_is_refused_whatever_the_plan_says(tmp_path: Path) -> None:
    plan = {**scenario.PLAN, "min_survivors": 1}
    digest = sha256(dumps(plan)).hex()
    log = scenario.start(tmp_path, plan=plan, plan_digest=digest)
    log.append(
        "round-intent", intent(1, plan_digest=digest, event=event(max_colluders=0, survivors=1))
    )
    log.close()
    with pytest.raises(VerificationFailed, match="1 survivors, 0 colluders"):
        verify(tmp_path)


def test_relations_are_never_composed(tmp_path: Path) -> None:
    log = granted(tmp_path)
    log.append("round-abort", scenario.abort(1, charged=True, event=event()))
    other = event(unit="record", relation="replace_one")
    log.append("round-abort", scenario.abort(2, charged=True, event=other))
    log.close()
    with pytest.raises(VerificationFailed, match="do not compose") as caught:
        verify(tmp_path)
    assert caught.value.index == 3


@pytest.mark.parametrize("delta", ["0.0", "1.0", "x", 1, None])
def test_a_plan_without_a_proper_delta_cannot_be_checked(tmp_path: Path, delta: Any) -> None:
    plan = {**scenario.PLAN, "delta": delta}
    log = AuditLog.create(tmp_path, scenario.signer(), clock=scenario.clock)
    log.append("genesis", scenario.genesis(plan=plan, plan_digest=sha256(dumps(plan)).hex()))
    log.close()
    with pytest.raises(VerificationFailed) as caught:
        verify(tmp_path)
    assert caught.value.index == 0


RECORD = {"unit": "record", "relation": "replace_one"}
CLIENT = {"unit": "client", "relation": "zero_out"}
DISCRETE = {"kind": "discrete_gaussian_round"}


def charged(*events: dict[str, Any]) -> SpendChecker:
    """A checker that has seen these intents, and no plan or limit worth the name."""
    checker = SpendChecker()
    genesis = scenario.genesis(plan={"delta": "1e-05"})
    grant = scenario.grant(epsilon="1e300", unit=events[0]["unit"])
    entries = [("genesis", genesis), ("budget-granted", grant)]
    entries += [("round-intent", intent(n, event=one)) for n, one in enumerate(events, start=1)]
    for kind, body in entries:
        raw = encode_entry(kind, body, index=0, prev=None, run="run", time=scenario.clock())
        checker.observe(decode_entry(raw))
    return checker


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_colluders": 0},
        {"share_variance": "3217.25", "l2": 33, "l1": 660},
        {"share_variance": "0.25", "l2": 1, "l1": 1, "dimension": 1},
        {"rate": "0.05"},
        {"rate": "0.9", "share_variance": "3217.25"},
        {**RECORD},
        {**RECORD, "rate": "0.02"},
        {**RECORD, "rate": "0.7", "share_variance": "3217.25"},
        {"unit": "user", "rate": "0.3"},
        {**CLIENT},
        {**CLIENT, "max_participations": 3},
        {**DISCRETE},
        {**DISCRETE, "share_variance": "0.25", "l2": 2, "l1": 4},
        {**DISCRETE, "share_variance": "0.5", "l2": 1, "l1": 1, "rate": "0.1"},
        {**DISCRETE, **RECORD, "rate": "0.1"},
    ],
    ids=str,
)
def test_the_product_s_accountant_and_the_checker_agree(changes: dict[str, Any]) -> None:
    logged = [event(survivors=survivors, **changes) for survivors in (7, 6, 8, 7, 6)]
    for rounds in (1, 2, 5):
        checker = charged(*logged[:rounds])
        spent = product_spend([event_from_json(one) for one in logged[:rounds]], delta=DELTA)
        for name in ADVERSARIES:
            stated = spent.adversaries[Adversary(name)].claimed
            assert checker.epsilon(name, DELTA) == pytest.approx(stated, rel=1e-9)


def test_the_sampled_bound_in_exact_arithmetic() -> None:
    """The expansion with 60 digits, from the unsampled bounds of the formulas themselves."""
    rate, shares = Decimal("0.05"), 5
    l2, l1, mu = Decimal(400), Decimal(8000), Decimal(160_000) * shares
    with localcontext(prec=60):
        unsampled = {
            m: m * l2**2 / (2 * mu)
            + min(((2 * m - 1) * l2**2 + 6 * l1) / (4 * mu**2), 3 * l1 / (2 * mu))
            for m in range(2, 41)
        }
        best = Decimal("inf")
        for a in range(2, 41):
            total = sum(
                math.comb(a, m)
                * (1 - rate) ** (a - m)
                * rate**m
                * ((m - 1) * unsampled.get(m, Decimal(0))).exp()
                for m in range(a + 1)
            )
            rdp = 200 * total.ln() / (a - 1)
            logs = Decimal(DELTA).ln() + Decimal(a).ln()
            best = min(best, rdp + (Decimal(a - 1) / a).ln() - logs / (a - 1))
    checker = charged(*[event(rate="0.05")] * 200)
    assert checker.epsilon("participants", DELTA) == pytest.approx(float(best), rel=1e-12)


def test_a_rate_that_was_not_the_plan_s_is_refused(tmp_path: Path) -> None:
    """Another's bug: shuffled batches logged as coins. The plan states the sampler once."""
    plan = {**scenario.PLAN, "rate": "1.0", "mechanism": "skellam"}
    digest = sha256(dumps(plan)).hex()
    for changes, why in (({"rate": "0.1"}, "plan has '1.0'"), (DISCRETE, "plan has mechanism")):
        directory = tmp_path / why.replace(" ", "")
        log = scenario.start(directory, plan=plan, plan_digest=digest)
        log.append("budget-granted", scenario.grant())
        log.append("round-intent", intent(1, plan_digest=digest, event=event(**changes)))
        log.close()
        with pytest.raises(VerificationFailed, match=why):
            verify(directory)


def test_nothing_costs_nothing_and_a_delta_is_needed() -> None:
    checker = SpendChecker()
    assert checker.epsilon("aggregator", DELTA) == 0.0
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(EntryRefused, match="delta"):
            checker.epsilon("aggregator", delta)
