"""A key that nobody holds: residues, shares, the check of dealings, and every set of t members."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from itertools import combinations as choices

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import SharesRefused, TermsRefused
from crypto.he_packing import to_coefficients
from crypto.he_seal import Encryptor, scheme_for
from crypto.he_transform import Transform, transform_for
from crypto.residues import (
    BINOMIAL_PAIRS,
    Multiplier,
    add,
    binomial,
    column,
    hashed,
    reduced,
    smudging,
    subtract,
    ternary,
    uniform,
    wide,
)
from crypto.threshold_key import KeyPart, KeyShare, common_polynomial, summed
from crypto.threshold_opening import Opener, key_fits
from crypto.threshold_parameters import (
    DEGREE,
    ThresholdParameters,
    answers_of,
    check_committee,
    noise_bound,
    noise_deviation,
    parameters_for,
)
from crypto.threshold_sets import comparing, covering, in_all, opening
from crypto.threshold_sharing import (
    Share,
    combinations,
    deal,
    lies_on_polynomial,
    repeats_of,
    weight_at_zero,
)
from tests.crypto.harness import seeded

PRIMES = parameters_for(20, 5, 100, 5, 3).scheme.data_primes


# --- residues -------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), ends=st.booleans())
def test_products_sums_and_differences_are_those_of_integers(seed: int, ends: bool) -> None:
    rng = np.random.default_rng(seed)
    primes = parameters_for(23, 100, 10**6, 5, 3).scheme.key_primes
    left, right = (
        np.stack([rng.integers(0, p, 50, dtype=np.uint64) for p in primes]) for _ in range(2)
    )
    if ends:
        left[:, 0], right[:, :2] = column(primes)[:, 0] - 1, column(primes) - 1
        left[:, 1] = 0
    wide_left, wide_right = left.astype(object), right.astype(object)
    modulus = column(primes).astype(object)
    assert (Multiplier(right, primes).times(left) == wide_left * wide_right % modulus).all()
    assert (add(left, right, column(primes)) == (wide_left + wide_right) % modulus).all()
    assert (subtract(left, right, column(primes)) == (wide_left - wide_right) % modulus).all()


def test_a_transform_multiplies_polynomials() -> None:
    rng = np.random.default_rng(3)
    degree = 8192
    transform = transform_for(degree, PRIMES)
    left = rng.integers(-5, 6, degree)
    shifted = np.roll(left, 3)
    shifted[:3] *= -1  # X^N = -1
    monomial = np.zeros(degree, dtype=np.int64)
    monomial[3] = 1
    pair = transform.forward(reduced(np.stack([left, monomial]), PRIMES))
    product = Multiplier(pair[0], PRIMES).times(pair[1])
    back = transform.backward(np.stack([product, product]))[0]
    np.testing.assert_array_equal(back, reduced(shifted, PRIMES))
    assert isinstance(transform, Transform)


def test_small_numbers_have_their_distribution() -> None:
    """Chi-squared at alpha = 1e-6 each; a uniform binomial or a missing value fails by far."""
    count = 200_000
    found = ternary(seeded("ternary"), count)
    observed = np.bincount(found + 1, minlength=3)
    assert ((observed - count / 3) ** 2 / (count / 3)).sum() < 27.7  # 2 degrees of freedom
    errors = binomial(seeded("binomial"), count)
    assert np.abs(errors).max() <= BINOMIAL_PAIRS
    values = np.arange(-9, 10)
    expected = np.array([math.comb(42, 21 + int(v)) / 2**42 for v in values]) * count
    got = np.array([(errors == v).sum() for v in values])
    assert ((got - expected) ** 2 / expected).sum() < 64.0  # 18 degrees of freedom
    flat = np.full(values.size, count / values.size)
    assert ((flat - expected) ** 2 / expected).sum() > 10_000


def centred(words: np.ndarray) -> np.ndarray:
    """Residues modulo PRIMES as integers around zero, [count] of Python's."""
    modulus = math.prod(PRIMES)
    value = np.zeros(words.shape[1], dtype=object)
    for row, prime in zip(words, PRIMES, strict=True):
        rest = modulus // prime
        value = (value + row.astype(object) * (rest * pow(rest, -1, prime))) % modulus
    return np.where(value > modulus // 2, value - modulus, value)


@pytest.mark.parametrize(
    "bound", [1, 5, (1 << 59) + 1, 1 << 63, 1 << 64, (1 << 64) + 12345, 3 << 69, (1 << 70) - 1]
)
def test_wide_integers_cover_their_interval_and_nothing_else(bound: int) -> None:
    """Range exactly; mean and mean absolute value within 6 standard errors."""
    count = 20_000
    values = centred(wide(seeded(bound), bound, count, PRIMES))
    assert max(values) <= bound
    assert min(values) >= -bound
    scaled = np.array([float(v) / (bound + 0.5) for v in values])
    # of 2 bound + 1 points the mean distance from the middle is bound (bound + 1) / (2 bound + 1)
    mean = float(Fraction(bound * (bound + 1), 2 * bound + 1) / Fraction(2 * bound + 1, 2))
    assert abs(np.abs(scaled).mean() - mean) < 6 / math.sqrt(12 * count)
    assert abs(scaled.mean()) < 6 / math.sqrt(3 * count)
    assert len(set(values)) == min(count, 2 * bound + 1)


@pytest.mark.parametrize("part", [1 << 40, 1 << 59, 1 << 66])
def test_smudging_is_the_sum_of_three_uniform_integers(part: int) -> None:
    """Two thirds lie within one part of the middle, and the variance is that of three parts.

    Both within 6 standard errors; one uniform integer of the same range, and a sum of two, do not.
    """
    count = 20_000
    drawn = centred(smudging(seeded(part), 3 * part, count, PRIMES))
    assert max(drawn) <= 3 * part
    assert min(drawn) >= -3 * part

    def fits(values: np.ndarray) -> bool:
        scaled = np.array([float(v) / part for v in values])
        inner = (np.abs(scaled) <= 1).mean()
        spread = (scaled**2).mean()
        return bool(
            abs(inner - 2 / 3) < 6 * math.sqrt(2 / 9 / count)
            and abs(spread - 1) < 6 * math.sqrt(1.6 / count)
        )

    assert fits(drawn)
    assert not fits(centred(wide(seeded(part), 3 * part, count, PRIMES)))
    halves = [centred(wide(seeded(k), part * 3 // 2, count, PRIMES)) for k in (1, 2)]
    assert not fits(halves[0] + halves[1])


@pytest.mark.parametrize("width", [1001, 4001, 10_001])
def test_the_shape_of_smudging_hides_a_step_as_well_as_is_claimed(width: int) -> None:
    """D^2 of the exact probabilities; those of a uniform integer have edges that cost far more."""
    one = np.ones(width)
    for weights, holds in ((np.convolve(np.convolve(one, one), one), True), (one, False)):
        root = np.sqrt(np.concatenate([[0.0], weights / weights.sum(), [0.0]]))
        cost = ((root[1:] - root[:-1]) ** 2).sum()
        assert (cost <= 1.2 / width**2) == holds


# --- sharing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("members", "threshold"), [(2, 2), (3, 2), (5, 3), (7, 4), (15, 8)])
def test_every_set_of_t_recovers_and_no_smaller_one(members: int, threshold: int) -> None:
    rng = seeded("sharing")
    secret = uniform(rng, (), PRIMES, 8)
    shares = deal(secret, range(1, members + 1), threshold, PRIMES, rng)
    for chosen in list(choices(range(1, members + 1), threshold))[:50]:
        for at, prime in enumerate(PRIMES):
            total = sum(
                weight_at_zero(chosen, x, prime) * shares[x].words[at].astype(object)
                for x in chosen
            )
            assert (total % prime == secret[at]).all()
            fewer = chosen[1:]
            if fewer:
                total = sum(
                    weight_at_zero(fewer, x, prime) * shares[x].words[at].astype(object)
                    for x in fewer
                )
                assert (total % prime != secret[at]).all()
    with pytest.raises(SharesRefused):
        weight_at_zero((1, 2), 3, PRIMES[0])


def test_with_ideal_randomness_t_minus_1_shares_are_the_same_for_any_secret() -> None:
    """Shift the secret and the polynomials with it: t - 1 members see the same bytes.

    With t shares the shift shows, so that the comparison can fail.
    """
    threshold, degree = 3, 16
    rng = seeded("ideal")
    secret, other = uniform(rng, (2,), PRIMES, degree)
    seen = (2, 5)
    drawn = uniform(rng, (threshold - 1,), PRIMES, degree)
    moved = drawn.copy()
    for at, prime in enumerate(PRIMES):
        # r(x) with r(0) = other - secret and r(2) = r(5) = 0 is added to the dealer's polynomial
        difference = (other[at].astype(object) - secret[at].astype(object)) % prime
        scale = pow(seen[0] * seen[1], -1, prime)
        linear = difference * (-(seen[0] + seen[1]) * scale)
        moved[0, at] = ((drawn[0, at].astype(object) + linear) % prime).astype(np.uint64)
        moved[1, at] = ((drawn[1, at].astype(object) + difference * scale) % prime).astype(
            np.uint64
        )

    def source(coefficients: np.ndarray) -> object:
        """Gives the polynomials' words as they are drawn, then something fixed."""
        parts = [np.ascontiguousarray(coefficients[:, at]).tobytes() for at in range(len(PRIMES))]
        rest = seeded("blinding")

        def rand(length: int) -> bytes:
            return parts.pop(0) if parts else rest(length)

        return rand

    views = [
        deal(s, range(1, 6), threshold, PRIMES, source(c))  # type: ignore[arg-type]
        for s, c in ((secret, drawn), (other, moved))
    ]
    for x in range(1, 6):
        same = np.array_equal(views[0][x].words, views[1][x].words)
        assert same is (x in seen)


@pytest.mark.parametrize("members", [4, 5, 7])
def test_a_dealing_that_lies_on_no_polynomial_does_not_pass(members: int) -> None:
    """One word of one share changed: the check fails; without the change it holds."""
    threshold = members // 2 + 1
    rng = seeded(members)
    shares = deal(uniform(rng, (), PRIMES, 64), range(1, members + 1), threshold, PRIMES, rng)

    def passes(given: dict[int, Share]) -> bool:
        told = {x: combinations(share, b"seed", PRIMES) for x, share in given.items()}
        return all(
            lies_on_polynomial({x: told[x][at][k] for x in told}, threshold, prime)
            for at, prime in enumerate(PRIMES)
            for k in range(repeats_of(prime))
        )

    assert passes(shares)
    for x in (1, members):
        words = shares[x].words.copy()
        words[-1, 7] = (words[-1, 7] + 1) % PRIMES[-1]
        assert not passes({**shares, x: Share(words, shares[x].blinding)})
    assert all(repeats_of(p) * (p.bit_length() - 1) >= 128 for p in PRIMES)


def test_a_combination_alone_shows_nothing_of_the_secret() -> None:
    """Without the blinding word the interpolated combinations are one of the secret's words."""
    rng = seeded("blinded")
    secret = uniform(rng, (), PRIMES, 64)
    shares = deal(secret, (1, 2, 3), 2, PRIMES, rng)
    prime = PRIMES[0]

    def constant(blinded: bool) -> int:
        told = {
            x: combinations(
                share if blinded else Share(share.words, ((0,) * len(share.blinding[0]),) * 2),
                b"seed",
                PRIMES,
            )[0][0]
            for x, share in shares.items()
        }
        return sum(weight_at_zero((1, 2), x, prime) * told[x] for x in (1, 2)) % prime

    of_secret = combinations(Share(secret, ((0,), (0,))), b"seed", PRIMES)[0][0]
    assert constant(blinded=False) == of_secret
    assert constant(blinded=True) != of_secret


# --- the key and the sum --------------------------------------------------------------------------


def made_key(
    parameters: ThresholdParameters, rand: object = os.urandom
) -> tuple[np.ndarray, np.ndarray, dict[int, KeyShare]]:
    """a, b and the members' shares."""
    scheme = parameters.scheme
    a = common_polynomial(b"context", scheme)
    points = range(1, parameters.members + 1)
    parts = [KeyPart(scheme, a, rand) for _ in points]  # type: ignore[arg-type]
    dealt = [
        deal(part.secret, points, parameters.threshold, scheme.data_primes, rand)  # type: ignore[arg-type]
        for part in parts
    ]
    shares = {
        x: KeyShare(parameters, summed([d[x].words for d in dealt], scheme.data_primes), x)
        for x in points
    }
    return a, summed([part.public for part in parts], scheme.key_primes), shares


@pytest.mark.parametrize(
    ("members", "threshold", "lane", "clients"),
    [(5, 3, 23, 100), (3, 2, 59, 5), (4, 3, 2, 3), (2, 2, 20, 3), (7, 5, 30, 10)],
)
def test_every_set_of_t_members_opens_the_sum(
    members: int, threshold: int, lane: int, clients: int
) -> None:
    length = 300
    parameters = parameters_for(lane, clients, length, members, threshold)
    scheme = parameters.scheme
    a, b, shares = made_key(parameters)
    encryptor = Encryptor(scheme_for(scheme), np.stack([b, a]))
    half = 1 << (lane - 1)
    rng = np.random.default_rng(lane)
    each = half // clients
    vectors = rng.integers(-each, max(each, 1), (clients, length))
    expected = vectors.sum(axis=0)
    vectors[-1, 0] += half - 1 - expected[0]
    vectors[-1, 1] += -half - expected[1]
    expected = vectors.sum(axis=0)
    total = summed(
        [encryptor.encrypt_all(to_coefficients(v, scheme)) for v in vectors], scheme.data_primes
    )
    opener = Opener(parameters)
    none = np.zeros_like(total[:, 1])
    sets = list(choices(range(1, members + 1), threshold))
    assert len(sets) == math.comb(members, threshold)
    for chosen in sets:
        answers = [shares[x].answer(total[:, 1], chosen, none, os.urandom) for x in chosen]
        np.testing.assert_array_equal(opener.open(total, answers, length), expected)


def test_the_test_of_the_key_notices_shares_of_anything_else() -> None:
    parameters = parameters_for(20, 5, 100, 5, 3)
    count = len(parameters.scheme.data_primes)
    a, b, shares = made_key(parameters)
    _, other, _ = made_key(parameters)
    none = np.zeros_like(a[:count])
    for chosen in choices(range(1, 6), 3):
        answers = [
            shares[x].answer_transformed(a[:count], chosen, none, os.urandom) for x in chosen
        ]
        assert key_fits(parameters, b, answers)
        assert not key_fits(parameters, other, answers)
        assert not key_fits(parameters, b, answers[:2])
        answers[0] = add(answers[0], answers[0], column(parameters.scheme.data_primes))
        assert not key_fits(parameters, b, answers)


# --- parameters -----------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    lane=st.integers(2, 62),
    clients=st.integers(3, 2000),
    length=st.integers(1, 3_000_000),
    members=st.integers(2, 15),
    data=st.data(),
)
def test_every_chosen_set_is_exact_hiding_and_secure(
    lane: int, clients: int, length: int, members: int, data: st.DataObject
) -> None:
    threshold = data.draw(st.integers(members // 2 + 1, members))
    try:
        chosen = parameters_for(lane, clients, length, members, threshold)
    except TermsRefused:
        assert lane > 59
        return
    scheme = chosen.scheme
    q = math.prod(scheme.data_primes)
    bound = noise_bound(clients, members, scheme.ciphertexts)
    assert q > 2 * 2**scheme.plain_bits * (bound + threshold * float(chosen.smudging))
    counted = DEGREE * (scheme.ciphertexts + 2) * answers_of(members, threshold) ** 2
    assert chosen.smudging % 3 == 0
    width = 2 * (chosen.smudging // 3) + 1
    leak = math.sqrt(1.2 * counted) * noise_deviation(clients, members) / width
    assert math.log2(leak) <= -40
    assert chosen.hiding_log2 == pytest.approx(math.log2(leak))
    assert math.prod(scheme.key_primes).bit_length() <= 218
    assert scheme.ciphertexts * scheme.values >= length
    assert max(q.bit_length() for q in scheme.key_primes) <= 60


def test_bytes_per_value() -> None:
    chosen = parameters_for(23, 100, 1_000_000, 5, 3)
    assert chosen.scheme.upload_bytes / 1_000_000 <= 14.0
    assert chosen.scheme.lanes == 2


@pytest.mark.parametrize(
    ("members", "threshold", "match"),
    [
        (5, 2, "committee_threshold is 2 of 5 members; allowed: 3 to 5"),
        (4, 2, "allowed: 3 to 4"),
        (5, 6, "allowed: 3 to 5"),
        (5, 0, "allowed: 3 to 5"),
        (1, 1, "names 1 officers; allowed: a committee of 2 to 15"),
        (16, 9, "names 16 officers"),
    ],
)
def test_other_committees_are_refused(members: int, threshold: int, match: str) -> None:
    with pytest.raises(TermsRefused, match=match):
        check_committee(members, threshold)


@pytest.mark.parametrize(("members", "threshold", "clients"), [(5, 3, 100), (3, 2, 10), (15, 8, 3)])
def test_noise_of_a_sum_is_within_its_bounds(members: int, threshold: int, clients: int) -> None:
    """Measured with the whole secret key: the largest below the bound, the mean below its bound.

    A key of twice as many members shows that the mean is no loose bound.
    """
    parameters = parameters_for(20, clients, DEGREE, members, threshold)
    scheme = parameters.scheme
    primes = scheme.data_primes
    a = common_polynomial(b"context", scheme)
    parts = [KeyPart(scheme, a, os.urandom) for _ in range(members)]
    secret = summed([part.secret for part in parts], primes)
    b = summed([part.public for part in parts], scheme.key_primes)
    encryptor = Encryptor(scheme_for(scheme), np.stack([b, a]))
    zero = np.zeros(DEGREE, dtype=np.uint64)
    total = summed([encryptor.encrypt(zero) for _ in range(clients)], primes)
    transform = transform_for(DEGREE, primes)
    product = Multiplier(secret, primes).times(transform.forward(total)[1])
    noise = add(total[0], transform.backward(np.stack([product, product]))[0], column(primes))
    modulus, value = math.prod(primes), np.zeros(DEGREE, dtype=object)
    for row, prime in zip(noise, primes, strict=True):
        rest = modulus // prime
        value = (value + row.astype(object) * (rest * pow(rest, -1, prime))) % modulus
    size = np.array([float(min(v, modulus - v)) for v in value])
    assert size.max() <= noise_bound(clients, members, 1)
    assert size.mean() <= noise_deviation(clients, members)
    assert size.mean() >= noise_deviation(clients, members) / 4


# --- sets -----------------------------------------------------------------------------------------


@given(data=st.data())
def test_losses_are_survived_within_the_answers_of_a_member(data: st.DataObject) -> None:
    """Whoever is lost whenever: a set opens, nobody answers too often, and what is left is told."""
    members = data.draw(st.integers(2, 9))
    threshold = data.draw(st.integers(members // 2 + 1, members))
    limit = answers_of(members, threshold)
    alive = set(range(members))
    for covered in (covering(alive, threshold),):
        assert set().union(*covered) == alive
    asked: dict[int, int] = {}
    complete: list[tuple[int, ...]] = []
    while True:
        sets = (
            comparing(alive, threshold, asked, limit, complete)
            if complete
            else (opening(alive, threshold, asked),)
        )
        if not sets:
            break
        due = {k for chosen in sets for k in chosen}
        assert due <= alive
        for chosen in sets:
            assert len(set(chosen)) == threshold
            for k in chosen:
                asked[k] = asked.get(k, 0) + 1
        assert max(asked.values()) <= limit
        spare = len(alive) - threshold
        lost = set(data.draw(st.lists(st.sampled_from(sorted(due)), max_size=spare)))
        alive -= lost
        complete += [chosen for chosen in sets if not lost & set(chosen)]
    assert complete
    if len(alive) == members > threshold and members != threshold + 1:
        assert len(in_all(complete)) < threshold


@pytest.mark.parametrize(("members", "threshold"), [(5, 3), (3, 2), (7, 4), (9, 5)])
def test_with_nobody_lost_every_answer_is_compared(members: int, threshold: int) -> None:
    first = opening(range(members), threshold, {})
    asked = dict.fromkeys(first, 1)
    more = comparing(range(members), threshold, asked, answers_of(members, threshold), [first])
    assert in_all([first, *more]) == frozenset()


def test_public_randomness_follows_from_its_seed() -> None:
    assert hashed(b"a")(40) == hashed(b"a")(40) != hashed(b"b")(40)
    rand = hashed(b"a")
    assert rand(40) != rand(40)
