"""End to end over a wire that drops, delays, repeats and changes messages: right or aborted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.spend import SpendChecker
from audit.verify import verify_log
from privacy.rng import SecureRandom
from secure_fedmeta.outcome import Abort, Release
from secure_fedmeta.transport.memory import RandomFaults
from tests.secure_fedmeta.federation import CLIENTS, Federation

ROUNDS = 3
OFTEN = st.sampled_from([0.0, 0.05, 0.2])


def check(federation: Federation, outcomes: list[Release | Abort]) -> None:
    """What has to hold whatever the wire did."""
    federation.spy.check_sums()
    releases = [outcome for outcome in outcomes if isinstance(outcome, Release)]
    aborts = [outcome for outcome in outcomes if isinstance(outcome, Abort)]
    charged = [abort for abort in aborts if abort.charged]
    assert len(federation.spy.sums) == len(releases)
    for outcome, (_, done) in zip(releases, federation.spy.sums, strict=True):
        assert outcome.survivors == len(done.contributors) >= federation.plan.min_survivors
    assert len(federation.events()) == len(releases) + len(charged)
    found = verify_log(
        federation.audit,
        vkey=federation.signer.vkey,
        pinned=federation.log.head,
        spend=SpendChecker(),
    )
    assert (found.released, found.aborted) == (len(releases), len(aborts))
    assert found.open_round is None


def run(federation: Federation) -> list[Release | Abort]:
    return [federation.round(index) for index in range(1, ROUNDS + 1)]


@settings(max_examples=20)
@given(
    protocol=st.sampled_from(["masking", "plain"]),
    drop=OFTEN,
    delay=OFTEN,
    duplicate=OFTEN,
    tamper=OFTEN,
    seed=st.binary(min_size=32, max_size=32),
)
def test_no_wire_gives_a_wrong_sum(
    protocol: str, drop: float, delay: float, duplicate: float, tamper: float, seed: bytes
) -> None:
    faults = RandomFaults(
        drop=drop,
        delay=delay,
        duplicate=duplicate,
        tamper=tamper,
        random=lambda _: SecureRandom.from_key(seed),
    )
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(
            Path(folder),
            {"secure_sum.protocol": protocol, "secure_sum.allow_insecure": True},
            faults=faults,
        )
        check(federation, run(federation))
        federation.log.close()


def test_repeats_alone_cost_nothing(tmp_path: Path) -> None:
    always = RandomFaults(
        drop=0, delay=0, duplicate=1, tamper=0, random=lambda _: SecureRandom.from_key(bytes(32))
    )
    federation = Federation(tmp_path, faults=always)
    outcomes = run(federation)
    check(federation, outcomes)
    assert all(isinstance(o, Release) and o.survivors == CLIENTS for o in outcomes)


@pytest.mark.parametrize("kind", ["drop", "delay", "tamper"])
def test_a_wire_that_never_delivers_in_time_aborts_uncharged(tmp_path: Path, kind: str) -> None:
    always = {"drop": 0.0, "delay": 0.0, "duplicate": 0.0, "tamper": 0.0, kind: 1.0}
    federation = Federation(
        tmp_path, faults=RandomFaults(**always, random=lambda _: SecureRandom.from_key(bytes(32)))
    )
    outcomes = run(federation)
    check(federation, outcomes)
    assert all(isinstance(outcome, Abort) and not outcome.charged for outcome in outcomes)
    assert federation.events() == ()
    assert federation.aggregator.model.equal(federation.parts.initial())


def test_the_faults_of_this_suite_reach_every_end(tmp_path: Path) -> None:
    """The property above is not empty: this wire gives releases and both kinds of abort."""
    seen = set()
    for seed in range(40):
        faults = RandomFaults(
            drop=0.05, delay=0.02, duplicate=0.1, tamper=0.03,
            random=lambda _, seed=seed: SecureRandom.from_key(bytes(31) + bytes([seed])),
        )  # fmt: skip
        folder = tmp_path / str(seed)
        folder.mkdir()
        federation = Federation(folder, faults=faults)
        outcome = federation.round(1)
        seen.add("released" if isinstance(outcome, Release) else f"charged {outcome.charged}")
        if len(seen) == 3:
            return
    pytest.fail(f"only {seen} in 40 rounds")
