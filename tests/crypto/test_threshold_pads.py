"""Pads of members: they cancel in a set, and are uniform to whoever lacks a key in it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from crypto.errors import SumAborted
from crypto.keys import Secret
from crypto.residues import add, column
from crypto.threshold_keygen import Checked
from crypto.threshold_member import ThresholdMember
from crypto.threshold_pads import pad_of, pair_key
from tests.crypto.harness import seeded
from tests.crypto.test_threshold_attacks import FIRST, PART, committee, until

PRIMES = (1125899906826241, 1125899906629633)
SHAPE = (2, 2, 64)
CONTEXT = bytes(range(32))


def keys_of(members: tuple[int, ...]) -> dict[int, dict[int, Secret]]:
    rand = seeded("pads")
    keys: dict[int, dict[int, Secret]] = {k: {} for k in members}
    for one, other in combinations(members, 2):
        made = pair_key(CONTEXT, {one: rand(32), other: rand(32)})
        keys[one][other] = keys[other][one] = made
    return keys


@pytest.mark.parametrize("chosen", [(5, 6), (5, 7, 9), (5, 6, 7, 8, 9)])
def test_pads_of_a_set_add_up_to_zero_and_those_of_fewer_do_not(chosen: tuple[int, ...]) -> None:
    keys = keys_of((5, 6, 7, 8, 9))
    pads = [pad_of(k, keys[k], chosen, CONTEXT, SHAPE, PRIMES) for k in chosen]
    total = pads[0]
    for pad in pads[1:]:
        assert (total != 0).mean() > 0.99
        total = add(total, pad, column(PRIMES))
    assert not total.any()
    for pad in pads:
        assert (pad < column(PRIMES)).all()
        assert len(np.unique(pad)) == pad.size


def test_a_member_of_a_long_roster_knows_itself() -> None:
    """An index that is equal need not be the same object."""
    keys = keys_of((300, 301))
    chosen = tuple(int(text) for text in ("300", "301"))
    pads = [pad_of(int(str(k)), keys[k], chosen, CONTEXT, SHAPE, PRIMES) for k in chosen]
    assert not add(*pads, column(PRIMES)).any()


def test_pads_are_of_one_set_one_question_and_both_halves() -> None:
    keys = keys_of((5, 6, 7))

    def pad(chosen: tuple[int, ...] = (5, 6), context: bytes = CONTEXT) -> np.ndarray:
        return pad_of(5, keys[5], chosen, context, SHAPE, PRIMES)

    np.testing.assert_array_equal(pad(), pad())
    for other in (pad((5, 7)), pad((5, 6, 7)), pad(context=bytes(32))):
        assert (pad() != other).mean() > 0.99
    halves = {5: bytes(32), 6: bytes([1]) * 32}
    same = pair_key(CONTEXT, dict(reversed(halves.items())))
    assert pair_key(CONTEXT, halves).reveal() == same.reveal()
    for context, changed in (
        (bytes(32), halves),
        (CONTEXT, {**halves, 5: bytes([1]) * 32}),
        (CONTEXT, {**halves, 6: bytes(32)}),
        (CONTEXT, {5: halves[5], 7: halves[6]}),
    ):
        assert pair_key(context, changed).reveal() != same.reveal()


def test_members_agree_on_keys_that_are_fresh_in_each_attempt() -> None:
    seen = set()
    for number in range(2):
        run = committee(3, 2, round_number=number)
        until(run, PART)
        phases = {k: member._phase for k, member in run.officers.items()}  # type: ignore[attr-defined]
        for one, other in combinations(run.officers, 2):
            first, second = phases[one], phases[other]
            assert isinstance(first, Checked)
            assert isinstance(second, Checked)
            assert first.pairs[other].reveal() == second.pairs[one].reveal()
            seen.add(first.pairs[other].reveal())
    assert len(seen) == 6


def test_members_that_were_asked_about_different_sums_open_nothing() -> None:
    """Their pads do not cancel, whatever is made of the answers: the attempt ends."""
    run = committee(3, 2)
    requests = until(run, PART)
    odd = run.officers[FIRST]
    assert isinstance(odd, ThresholdMember)
    assert odd._held is not None
    odd._held = type(odd._held)(odd._held.intent, odd._held.survivors[1:], odd._held.total)
    for k, request in requests.items():
        run.aggregator.receive(k, run.officers[k].step(request))
    with pytest.raises(SumAborted, match="noise is larger"):
        run.aggregator.advance()
