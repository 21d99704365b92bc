"""Attacks on a copy: within the claim on a right pipeline, beyond it where noise is missing.

A right pipeline fails one of these by chance with probability below 1e-4.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from privacy.accountant import Adversary
from privacy.rng import SecureRandom
from secure_fedmeta.assessed import Genuine, Subject
from secure_fedmeta.attacks import CANARIES, VIEWS, canaries, matching, membership
from secure_fedmeta.config import parse_config
from secure_fedmeta.pipeline import assemble
from tests.secure_fedmeta.federation import settings

RANDOM = SecureRandom.from_os()


def subject(**changes: object) -> Subject:
    tree = settings({key.replace("__", "."): value for key, value in changes.items()})
    return Subject(assemble(parse_config(json.loads(json.dumps(tree)))), Genuine())


@pytest.mark.parametrize("unit", ["task", "user"])
def test_canaries_stay_within_the_claim_and_say_something(unit: str) -> None:
    found = canaries(subject(privacy__unit=unit), RANDOM)
    figures = found.figures
    assert found.check.passed
    assert figures["canaries"] == CANARIES == 10_000
    assert 0.2 < figures["epsilon_lower_bound"] < figures["claim"]
    assert figures["right"] > 0.6 * figures["guesses"]


def test_unit_client_has_no_room_for_canaries() -> None:
    found = canaries(subject(privacy__unit="client"), RANDOM)
    assert found.check.passed is None


def test_membership_stays_within_the_claim_for_every_view() -> None:
    found = list(membership(subject(), RANDOM, lambda text: None))
    assert [attack.figures["view"] for attack in found] == [view.value for view in VIEWS]
    for attack in found:
        low, high = attack.figures["true_positives_ci95"]
        assert attack.check.passed
        assert low <= attack.figures["true_positives"] <= high


def test_a_broken_sum_gives_more_away_than_a_sum_of_all() -> None:
    """One share of noise instead of four: 4.5 deviations between in and out instead of 2.2.

    With thresholds from 500 trials (false positives between 0.2 and 3 %, but once in 10^5) the
    aggregator finds below 0.65, and a broken sum above 0.9.
    """
    found = list(membership(subject(privacy__epsilon=20.0), RANDOM, lambda text: None))
    by_view = {attack.figures["view"]: attack.figures["true_positives"] for attack in found}
    assert by_view["aggregator"] < 0.75 < 0.85 < by_view["broken_sum"]


def test_without_noise_attacks_succeed_and_fail_the_assessment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A build whose sampler gives next to no noise."""
    weak = {
        name: lambda variance, size, rng: (rng.words(size) & 1).astype(np.int64)
        for name in ("skellam", "discrete-gaussian")
    }
    monkeypatch.setattr("privacy.plan.SAMPLERS", weak)
    audit = canaries(subject(), RANDOM)
    assert audit.check.passed is False
    assert audit.figures["right"] == audit.figures["guesses"]
    found = {
        attack.figures["view"]: attack
        for attack in membership(subject(), RANDOM, lambda text: None)
    }
    assert found["aggregator"].check.passed is False
    assert found["aggregator"].figures["true_positives"] > 0.95


def test_gradient_matching_is_right_in_clear_and_seldom_in_a_sum() -> None:
    found = {row["view"]: row for row in matching(subject(), RANDOM)}
    assert found["unprotected"]["right"] > 0.95
    assert found[Adversary.AGGREGATOR.value]["right"] < 0.6
    assert found["unprotected"]["chance"] <= 0.1
