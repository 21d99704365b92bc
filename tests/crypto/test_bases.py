"""What every protocol, party and aggregator must bring: one that leaves something out is none."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from crypto.attempt import AggregatorAttempt
from crypto.errors import SumAborted, TermsRefused
from crypto.party import PartyAttempt
from crypto.protocol import SecureSum
from crypto.secure_sum import SECURE_SUMS
from tests.crypto.harness import Run, make_vectors, terms_for

WANTED = {
    PartyAttempt: ("step", "_write", "_read"),
    AggregatorAttempt: ("_reader", "_write", "_read", "_forget"),
    SecureSum: (
        "check",
        "sharing",
        "capabilities",
        "upload_bytes",
        "check_invitation",
        "client_class",
        "aggregator_class",
    ),
}


@pytest.mark.parametrize(
    ("base", "left_out"), [(base, name) for base, names in WANTED.items() for name in names]
)
def test_a_part_without_one_of_its_methods_cannot_be_made(base: type, left_out: str) -> None:
    brought = {name: lambda self: None for name in WANTED[base] if name != left_out}
    with pytest.raises(TypeError, match=rf"abstract method '?{left_out}'?"):
        type("Incomplete", (base,), brought)()


@pytest.mark.parametrize("base", WANTED)
def test_nothing_else_is_wanted(base: type) -> None:
    assert base.__abstractmethods__ == set(WANTED[base])  # type: ignore[attr-defined]


@pytest.mark.parametrize(("members", "threshold"), [(1, 1), (16, 9), (4, 2), (5, 6), (3, 0)])
def test_a_threshold_committee_is_checked_where_it_is_chosen(members: int, threshold: int) -> None:
    with pytest.raises(TermsRefused, match="allowed: "):
        SECURE_SUMS["threshold"].committee(members, threshold)


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_too_few_threshold_members_end_the_key(step: int) -> None:
    """Two of three members can open; with one there is nothing to go on for."""
    terms = terms_for("threshold", 3)
    run = Run("threshold", terms, make_vectors(terms))
    with pytest.raises(SumAborted, match="1 members of the committee are left, 2 needed"):
        run.drive({4: step, 5: step})


@pytest.mark.parametrize("name", ["he", "threshold"])
def test_threshold_loads_seal_only_where_it_is_used(name: str) -> None:
    code = (
        "import sys, crypto.secure_sum as s;"
        f"s.SECURE_SUMS[{name!r}].capabilities();"
        "print([m for m in sys.modules if m in ('tenseal', 'crypto.he_seal')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
    module = importlib.import_module(f"crypto.{name}")
    machines = {
        "HeClient",
        "HeOfficer",
        "ThresholdAggregator",
        "ThresholdClient",
        "ThresholdMember",
    }
    assert not machines & vars(module).keys()
