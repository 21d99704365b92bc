from __future__ import annotations

import json

import pytest

from privacy.accountant import Adversary, spend
from privacy.adaptive_clip import AdaptiveClip
from privacy.compression import Compression, Kind
from privacy.events import NonPrivate
from privacy.extras import Extras, Metric
from privacy.report import ADVERSARY_WORDS, UNPROTECTED, budget_report
from privacy.unit import PLAIN_WORDS, RELATION_OF, Relation, Unit
from tests.privacy.plans import calibrated, with_noise

PLAN = calibrated()
EVENTS = [PLAN.worst_event()] * PLAN.rounds


def test_the_report_is_json_and_agrees_with_the_accountant() -> None:
    report = json.loads(json.dumps(budget_report(PLAN, EVENTS, grant=3.0), allow_nan=False))
    spent = spend(EVENTS, delta=PLAN.delta)
    assert report["spent_epsilon"] == spent.worst
    assert report["within_grant"] is True
    assert (report["granted_epsilon"], report["target_epsilon"], report["events"]) == (3.0, 3.0, 30)
    assert [row["name"] for row in report["adversaries"]] == [a.value for a in Adversary]
    for row in report["adversaries"]:
        figures = spent.adversaries[Adversary(row["name"])]
        assert row["epsilon"][row["claim"]] == figures.claimed
        assert (row["record"], row["person"]) == (figures.record, figures.person)
        assert row["epsilon"]["gaussian_reference_exact"] < figures.claimed
        assert "{" not in row["description"]
    assert report["plan"] == PLAN.to_json()
    assert report["plan_digest"] == PLAN.digest().hex()
    assert report["sensitivity"]["l2_steps"] == PLAN.l2
    assert (report["relation"], report["unit_in_words"]) == ("add_remove", PLAIN_WORDS[Unit.TASK])


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (Compression(), "L2 norm 1, rounded to integers of at most 4097 steps"),
        (
            Compression(rotate=True),
            "norm 1, rotated by public random signs and transforms, rounded",
        ),
        (
            Compression(kind=Kind.SUBSET, keep=0.5),
            "to 32 of 64 coordinates, which a public seed draws anew in each round, rounded",
        ),
        (
            Compression(kind=Kind.LOW_RANK, rotate=True, keep=0.25),
            "transforms, reduced to 16 of 64 coordinates, the same in all rounds, rounded",
        ),
    ],
)
def test_the_mechanism_names_the_public_map(terms: Compression, said: str) -> None:
    plan = with_noise(parameters=64, compression=terms)
    assert said in budget_report(plan, [plan.worst_event()], grant=None)["mechanism"]


def test_record_and_person_are_said_beside_the_claim() -> None:
    text = " ".join(budget_report(PLAN, EVENTS, grant=3.0)["caveats"])
    assert "one record replaced" in text
    assert "4 units" in text
    assert "'rdp'" in text
    assert "no contributing client works with" not in text
    assert "always knows the noise that it added" in text


@pytest.mark.parametrize(
    "said",
    [
        "makes up 4 whole units",
        "counts as 8",
        "more than 10 units",
        "which clients drop out does not depend on what earlier rounds released",
        "32-bit floating point",
    ],
)
def test_what_the_claim_takes_for_granted_is_said(said: str) -> None:
    assert said in " ".join(budget_report(PLAN, EVENTS, grant=3.0)["caveats"])


def test_a_plan_without_colluders_says_what_it_assumes() -> None:
    plan = with_noise(max_colluders=0)
    caveats = budget_report(plan, [], grant=None)["caveats"]
    assert any("no contributing client works with" in caveat for caveat in caveats)
    assert not any("looks at its own noise" in caveat for caveat in caveats)


def test_spending_beyond_the_grant_and_without_one() -> None:
    assert budget_report(PLAN, EVENTS, grant=2.9)["within_grant"] is False
    ungranted = budget_report(PLAN, EVENTS, grant=None)
    assert ungranted["within_grant"] is ungranted["granted_epsilon"] is None


def test_no_bound_is_none_in_json() -> None:
    bare = NonPrivate(Unit.TASK, Relation.ADD_REMOVE, "noise off")
    report = budget_report(PLAN, [bare], grant=3.0)
    json.dumps(report, allow_nan=False)
    assert report["spent_epsilon"] is None
    assert report["within_grant"] is False
    assert all(row["record"] is None for row in report["adversaries"])


@pytest.mark.parametrize("extra", [(), ("held-out scores of training clients",)])
def test_what_is_unprotected_is_listed(extra: tuple[str, ...]) -> None:
    listed = budget_report(PLAN, [], grant=3.0, unprotected=extra)["unprotected"]
    assert listed == [*UNPROTECTED, *extra]


def test_every_unit_and_adversary_has_words() -> None:
    assert set(PLAIN_WORDS) == set(RELATION_OF) == set(Unit)
    assert set(ADVERSARY_WORDS) == set(Adversary)


def test_the_report_says_what_stands_behind_the_vector_and_how_the_bound_moves() -> None:
    extras = Extras((Metric("query_loss", 2.0, 0.2),), AdaptiveClip(0.5, 0.2, 0.2))
    plan = with_noise(extras=extras)
    found = budget_report(plan, [plan.worst_event()], grant=None)
    assert "followed by 2 coordinates of its own (query_loss cut to 2" in found["mechanism"]
    assert "towards 0.5" in found["mechanism"]
    assert any("also if the aggregator lies about it" in one for one in found["caveats"])
    plain = budget_report(with_noise(), [with_noise().worst_event()], grant=None)
    assert "followed by" not in plain["mechanism"]
    assert not any("lies about it" in one for one in plain["caveats"])
