"""Small parts of the threshold sum against values by hand, or formulas written out again."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.codec import Writer, tagged_digest
from crypto.errors import Malformed, SharesRefused, TermsRefused
from crypto.he_transform import transform_for
from crypto.keys import Rand, Secret, derive
from crypto.residues import (
    Multiplier,
    Words,
    add,
    binomial,
    column,
    hashed,
    inner,
    reduced,
    smudging,
    subtract,
    ternary,
    uniform,
    wide,
)
from crypto.threshold_contexts import (
    context_of_check,
    context_of_dealing,
    context_of_key,
    context_of_pads,
    context_under,
    digest_of_key,
    digest_of_share,
    digest_of_sum,
    seed_of_check,
)
from crypto.threshold_key import KeyPart, KeyShare, common_polynomial, summed
from crypto.threshold_opening import Opener, key_fits
from crypto.threshold_pads import pad_of, pair_key
from crypto.threshold_parameters import (
    check_committee,
    choose,
    noise_bound,
    openings_of,
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
from tests.crypto.harness import seeded, terms_for

PARAMETERS = parameters_for(20, 5, 100, 5, 3)
SCHEME = PARAMETERS.scheme
PRIMES = SCHEME.data_primes


def tape(*parts: bytes) -> Rand:
    """Randomness that is these bytes one after the other; each draw must ask for what is next."""
    left = list(parts)

    def rand(length: int) -> bytes:
        part = left.pop(0)
        assert len(part) == length
        return part

    return rand


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


# --- residues -------------------------------------------------------------------------------------


def test_uniform_keeps_what_is_below_the_prime_and_draws_the_rest_again() -> None:
    drawn = uniform(
        tape(
            words(10, 11, 12 + (5 << 60), 0),
            words(13, 15),
            words(9, 9 + 16),
            words(0, 4, 5, 1),
            words(3 + 8),
        ),
        (2,),
        (11, 5),
        2,
    )
    np.testing.assert_array_equal(drawn, [[[10, 0], [0, 4]], [[9, 9], [1, 3]]])


def test_ternary_numbers_come_from_bytes_below_255() -> None:
    drawn = ternary(tape(bytes([0, 1, 2, 255, 254]), bytes([3])), 5)
    np.testing.assert_array_equal(drawn, [-1, 0, 1, 1, -1])


def test_binomial_numbers_are_21_bits_less_21_bits() -> None:
    def row(*bits: int) -> bytes:
        return sum(1 << (63 - bit) for bit in bits).to_bytes(8, "big")

    drawn = binomial(
        tape(
            row(*range(21))
            + row(*range(21, 42))
            + row(*range(42, 64))
            + row(20)
            + row(21)
            + row(41)
            + row(0, 1, 2, 40)
        ),
        7,
    )
    np.testing.assert_array_equal(drawn, [21, -21, 0, 1, -1, -1, 2])


def test_wide_numbers_end_at_the_bound_exactly() -> None:
    bound = (1 << 64) + 5  # twice it is 2 * 2^64 + 10
    drawn = wide(
        tape(
            words(2, 2, 3, 0, 5) + words(10, 11, 0, 0, 7),
            words(1, 0) + words((1 << 64) - 1, 3),
        ),
        bound,
        5,
        PRIMES,
    )
    expected = [bound, -bound, 2, (1 << 65) - 1 - bound, 3 - bound]
    np.testing.assert_array_equal(drawn, [[value % p for value in expected] for p in PRIMES])


def test_products_of_the_largest_residues() -> None:
    primes = parameters_for(23, 100, 10**6, 5, 3).scheme.key_primes
    values = np.array([[0, 1, 2, p // 2, p - 2, p - 1] for p in primes], dtype=np.uint64)
    for k in range(values.shape[1]):
        factor = values[:, k : k + 1]
        expected = factor.astype(object) * values % column(primes).astype(object)
        np.testing.assert_array_equal(Multiplier(factor, primes).times(values), expected)
        np.testing.assert_array_equal(
            add(values, factor, column(primes)),
            (values.astype(object) + factor) % column(primes).astype(object),
        )
        np.testing.assert_array_equal(
            subtract(values, factor, column(primes)),
            (values.astype(object) - factor) % column(primes).astype(object),
        )
    assert repr(Multiplier(values, primes)) == "Multiplier(redacted)"


def test_inner_products_and_small_numbers_are_reduced() -> None:
    large = 2**59
    left, right = (np.array(v, dtype=np.uint64) for v in ([large, 3, 0], [large, large, 7]))
    assert inner(left, right, 101) == (large * large + 3 * large) % 101
    small = np.array([[-2, 0], [5, -1]])
    np.testing.assert_array_equal(reduced(small, (11, 7)), [[[9, 0], [5, 0]], [[5, 10], [5, 6]]])


def test_public_randomness_is_shake_of_the_seed_and_the_call() -> None:
    rand = hashed(b"seed")
    for call in (1, 2):
        expected = hashlib.shake_256(b"seed" + call.to_bytes(4, "little")).digest(33)
        assert rand(33) == expected


# --- sharing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prime", "count"), [(65521, 9), (65537, 8), (2**32 + 15, 4), (2**60 - 93, 3), (3, 128)]
)
def test_combinations_suffice_for_2_to_the_minus_128(prime: int, count: int) -> None:
    assert repeats_of(prime) == count


@pytest.mark.parametrize("threshold", [1, 2, 4])
def test_shares_are_values_of_the_drawn_polynomials(threshold: int) -> None:
    primes = (2**59 - 55, 65537)
    secret = uniform(seeded("secret"), (), primes, 4)
    points = (1, 2, 15)
    shares = deal(secret, points, threshold, primes, seeded("drawn"))
    rand = seeded("drawn")
    higher = uniform(rand, (threshold - 1,), primes, 4).astype(object)
    blinding = [
        uniform(rand, (threshold,), (p,), repeats_of(p))[:, 0].astype(object) for p in primes
    ]
    assert shares.keys() == set(points)
    for x in points:
        for at, prime in enumerate(primes):
            expected = secret[at].astype(object) + sum(
                higher[k, at] * x ** (k + 1) for k in range(threshold - 1)
            )
            np.testing.assert_array_equal(shares[x].words[at], expected % prime)
            blind = sum(blinding[at][k] * x**k for k in range(threshold)) % prime
            assert shares[x].blinding[at] == tuple(blind)
            assert all(type(word) is int for word in shares[x].blinding[at])


def test_a_combination_is_an_inner_product_with_hashed_factors() -> None:
    primes = (2**59 - 55, 65537)
    share = deal(uniform(seeded(1), (), primes, 8), (1, 2), 2, primes, seeded(2))[1]
    told = combinations(share, b"digest", primes)
    assert [len(row) for row in told] == [repeats_of(p) for p in primes]
    for at, prime in enumerate(primes):
        for repeat, word in enumerate(told[at]):
            seed = tagged_digest("fedmeta/threshold/check/v1", b"digest", bytes([at, repeat]))
            factors = uniform(hashed(seed), (), (prime,), 8)[0].astype(object)
            product = (factors * share.words[at].astype(object)).sum()
            assert word == (product + share.blinding[at][repeat]) % prime


def test_a_blinding_word_is_below_its_prime() -> None:
    share = deal(uniform(seeded(1), (), PRIMES, 64), (1, 2), 2, PRIMES, seeded(2))[2]
    largest = Share(share.words, tuple((0,) * (repeats_of(p) - 1) + (p - 1,) for p in PRIMES))
    again = Share.decode(largest.encode(PRIMES), PRIMES, 64)
    np.testing.assert_array_equal(again.words, share.words)
    assert again.blinding == largest.blinding
    for at in range(len(PRIMES)):
        rows = [list(row) for row in largest.blinding]
        rows[at][0] = PRIMES[at]
        wrong = Share(share.words, tuple(tuple(row) for row in rows))
        with pytest.raises(Malformed, match="blinding word is not below its prime"):
            Share.decode(wrong.encode(PRIMES), PRIMES, 64)
    assert "blinding" not in repr(share)


def test_lagrange_coefficients() -> None:
    prime = 10007
    for points in ((1,), (1, 2), (2, 5, 15), (3, 1, 4, 7)):
        for x in points:
            exact = math.prod((Fraction(-o, x - o) for o in points if o != x), start=Fraction(1))
            expected = exact.numerator * pow(exact.denominator, -1, prime) % prime
            assert weight_at_zero(points, x, prime) == expected
    for points, x in (((1, 2), 3), ((1, 1, 2), 2), ((2, 1, 1), 1)):
        with pytest.raises(SharesRefused, match="repeat or leave this one out"):
            weight_at_zero(points, x, prime)


def test_values_lie_on_a_polynomial_or_not() -> None:
    prime = 10007
    values = {x: (5 + 7 * x + 9 * x * x) % prime for x in (9, 2, 5, 3, 14)}
    assert lies_on_polynomial(values, 3, prime)
    assert lies_on_polynomial(values, 4, prime)
    assert not lies_on_polynomial(values, 2, prime)
    for x in values:
        changed = {**values, x: (values[x] + 1) % prime}
        assert not lies_on_polynomial(changed, 3, prime)
        assert not lies_on_polynomial(changed, 4, prime)
        assert lies_on_polynomial(changed, 5, prime)


# --- keys and answers -----------------------------------------------------------------------------


def spread(values: dict[int, int], primes: tuple[int, ...]) -> Words:
    """A polynomial [primes, N] with these coefficients, not transformed."""
    found = np.zeros((len(primes), SCHEME.degree), dtype=np.uint64)
    for place, value in values.items():
        found[:, place] = [value % p for p in primes]
    return found


def forward(polynomial: Words, primes: tuple[int, ...]) -> Words:
    transformed: Words = transform_for(SCHEME.degree, primes).forward(
        np.stack([polynomial, polynomial])
    )[0]
    return transformed


def test_the_common_polynomial_is_a_hash_of_the_context_and_the_scheme() -> None:
    seed = tagged_digest("fedmeta/threshold/a/v1", b"context", SCHEME.encode())
    expected = uniform(hashed(seed), (), SCHEME.key_primes, SCHEME.degree)
    np.testing.assert_array_equal(common_polynomial(b"context", SCHEME), expected)


def test_a_part_of_the_key_is_an_error_less_a_times_the_secret() -> None:
    primes = SCHEME.key_primes
    a = common_polynomial(b"context", SCHEME)
    part = KeyPart(SCHEME, a, seeded("part"))
    rand = seeded("part")
    secret = reduced(ternary(rand, SCHEME.degree), primes)
    error = forward(reduced(binomial(rand, SCHEME.degree), primes), primes)
    transformed = forward(secret, primes)
    product = Multiplier(a, primes).times(transformed)
    np.testing.assert_array_equal(add(part.public, product, column(primes)), error)
    np.testing.assert_array_equal(part.secret, transformed[: len(PRIMES)])
    assert repr(part) == "KeyPart(redacted)"


def test_sums_of_one_two_and_three() -> None:
    one = np.array([[10, 1], [6, 2]], dtype=np.uint64)
    for count in (1, 2, 3):
        expected = [[10 * count % 11, count], [6 * count % 7, 2 * count]]
        np.testing.assert_array_equal(summed([one] * count, (11, 7)), expected)


def test_an_answer_is_the_weighted_product_and_smudging_and_the_pad() -> None:
    rand = seeded("answer")
    held = uniform(rand, (), PRIMES, SCHEME.degree)
    seconds, pad = (uniform(rand, (2,), PRIMES, SCHEME.degree) for _ in range(2))
    share = KeyShare(PARAMETERS, held, 2)
    points = (1, 2, 5)
    weights = np.array([[weight_at_zero(points, 2, p)] for p in PRIMES], dtype=np.uint64)
    factor = Multiplier(Multiplier(weights, PRIMES).times(held), PRIMES)
    answers = share.answer(seconds, points, pad, seeded("smudging"))
    again = seeded("smudging")
    for k in range(2):
        noise = forward(smudging(again, PARAMETERS.smudging, SCHEME.degree, PRIMES), PRIMES)
        product = factor.times(forward(seconds[k], PRIMES))
        expected = add(add(product, noise, column(PRIMES)), pad[k], column(PRIMES))
        np.testing.assert_array_equal(answers[k], expected)
    found = share.answer_transformed(seconds[0], points, pad[0], seeded("one"))
    noise = forward(smudging(seeded("one"), PARAMETERS.smudging, SCHEME.degree, PRIMES), PRIMES)
    expected = add(add(factor.times(seconds[0]), noise, column(PRIMES)), pad[0], column(PRIMES))
    np.testing.assert_array_equal(found, expected)
    assert repr(share) == "KeyShare(point=2, redacted)"


def test_the_test_of_the_key_allows_what_honest_members_add_and_no_more() -> None:
    allowed = PARAMETERS.threshold * PARAMETERS.smudging + PARAMETERS.members * 21
    none = np.zeros((len(PRIMES), SCHEME.degree), dtype=np.uint64)
    primes = SCHEME.key_primes
    for place in (0, SCHEME.degree - 1):
        for value, fits in ((allowed, True), (allowed + 1, False)):
            for sign in (1, -1):
                public = forward(spread({place: sign * value}, primes), primes)
                assert key_fits(PARAMETERS, public, [none, none]) is fits


def test_sums_open_up_to_the_noise_of_honest_parties() -> None:
    opener = Opener(PARAMETERS)
    modulus, plain = math.prod(PRIMES), 1 << SCHEME.plain_bits
    # what one answer has more, the other two have less: SEAL transforms no zeros
    parts = [forward(spread({9: part}, PRIMES), PRIMES)[None] for part in (5, 4, -8)]

    def opened(noise: int) -> np.ndarray:
        total = np.zeros((1, 2, len(PRIMES), SCHEME.degree), dtype=np.uint64)
        values = {k: (modulus * k + plain // 2) // plain + noise for k in range(4)}
        total[0, 0] = spread({**values, 9: -1}, PRIMES)
        return opener.open(total, parts, 4 * SCHEME.lanes)

    expected = opened(0)
    assert expected.any()
    for sign in (1, -1):
        np.testing.assert_array_equal(opened(sign * int(PARAMETERS.noise)), expected)
        with pytest.raises(Malformed, match="noise is larger"):
            opened(sign * int(PARAMETERS.noise * (1 + 1e-9)))


# --- pads -----------------------------------------------------------------------------------------


def test_a_pad_adds_the_streams_of_higher_members_and_subtracts_those_of_lower_ones() -> None:
    context, label = bytes(range(32)), "fedmeta/threshold/v1/pad"
    halves = {7: bytes([7]) * 32, 5: bytes([5]) * 32}
    ends = Writer().u32(5).u32(7).done()
    expected = derive(halves[5] + halves[7], label + " key", context, ends)
    assert pair_key(context, halves).reveal() == expected

    members, shape = (5, 6, 9), (2, len(PRIMES), 64)
    keys = {5: Secret(bytes([1]) * 32), 9: Secret(bytes([2]) * 32), 7: Secret(bytes(32))}
    asked = Writer().indices(members).done()

    def stream(other: int) -> Words:
        key = derive(keys[other].reveal(), label, context, asked)
        encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        return uniform(lambda n: encryptor.update(bytes(n)), (2,), PRIMES, 64)

    found = pad_of(6, keys, members, context, shape, PRIMES)
    np.testing.assert_array_equal(found, subtract(stream(9), stream(5), column(PRIMES)))


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "members", "threshold", "ciphertexts"),
    [(100, 5, 3, 62), (3, 15, 8, 1), (40, 2, 2, 9)],
)
def test_the_bound_of_the_noise_is_that_of_the_formula(
    clients: int, members: int, threshold: int, ciphertexts: int
) -> None:
    each, weight = clients * (1 + 2.0**-17), 2 * members * 8192 / 3
    share = 129 * math.log(2)  # 2^-128, half for the key and half for the sums
    heavy = min(8192.0 * members**2, weight + members**2 * math.sqrt(4096 * share))
    exponent = share + math.log(16384 * ciphertexts)
    bound = each + math.sqrt(clients * heavy * exponent / 6)
    assert noise_bound(clients, members, ciphertexts) == pytest.approx(bound, rel=1e-12)
    sets = (members - threshold + 1) ** 2
    assert openings_of(members, threshold) == sets


def test_parameters_of_a_plan_are_these() -> None:
    chosen = parameters_for(23, 100, 1_000_000, 5, 3)
    scheme = chosen.scheme
    assert (scheme.degree, scheme.lane, scheme.lanes, scheme.ciphertexts) == (8192, 23, 2, 62)
    assert chosen.answers == 3
    bound = noise_bound(100, 5, scheme.ciphertexts)
    assert chosen.noise == pytest.approx(bound + 3 * float(chosen.smudging), rel=1e-12)
    encoded = scheme.encode() + bytes([5, 3]) + chosen.smudging.to_bytes(16, "little")
    assert chosen.encode() == encoded


def test_sums_without_exact_parameters_are_refused() -> None:
    parameters_for(59, 5, 100, 3, 2)
    with pytest.raises(
        TermsRefused, match=r"sums of 62 bits over 2000 clients, decrypted by 8 of"
    ) as told:
        parameters_for(62, 2000, 3_000_000, 15, 8)
    assert "allowed: 178, and plaintexts of up to" in str(told.value)


def test_the_smallest_and_the_largest_committees() -> None:
    for members, threshold in ((2, 2), (3, 2), (15, 8), (15, 15)):
        check_committee(members, threshold)
    for members, threshold in ((1, 1), (16, 9), (2, 1), (15, 7), (15, 16)):
        with pytest.raises(TermsRefused):
            check_committee(members, threshold)


def test_parameters_follow_from_the_terms() -> None:
    terms = terms_for("threshold", 4)
    members, threshold = len(terms.roster.officers), terms.committee_threshold
    assert choose(terms) == parameters_for(
        terms.ring.bits, len(terms.cohort), terms.length, members, threshold
    )
    assert (choose(terms).members, choose(terms).threshold) == (members, threshold)


# --- sets -----------------------------------------------------------------------------------------


def test_sets_that_cover_everybody() -> None:
    assert covering([4, 0, 3, 1, 2], 3) == ((0, 1, 2), (2, 3, 4))
    assert covering((7, 3), 2) == ((3, 7),)


def test_the_set_that_opens_has_those_that_were_asked_least() -> None:
    assert opening([4, 3, 2, 1, 0], 3, {}) == (0, 1, 2)
    assert opening(range(5), 3, {0: 1, 1: 1}) == (2, 3, 4)
    assert opening(range(5), 3, {0: 2, 1: 1, 2: 1, 3: 1, 4: 2}) == (1, 2, 3)


@pytest.mark.parametrize(
    ("members", "threshold", "asked", "limit", "complete", "expected"),
    [
        (range(5), 3, {0: 1, 1: 1, 2: 1}, 3, [(0, 1, 2)], ((0, 3, 4), (1, 2, 3))),
        (range(3), 2, {0: 1, 1: 1}, 2, [(0, 1)], ((0, 2), (1, 2))),
        (range(3), 2, {0: 1, 1: 1}, 1, [(0, 1)], ()),
        (range(2), 2, {0: 1, 1: 1}, 2, [(0, 1)], ()),
        (range(4), 2, {0: 1, 1: 1}, 3, [(0, 1)], ((2, 3),)),
        (range(4), 2, {0: 1, 1: 1, 2: 3}, 3, [(0, 1)], ((0, 3), (1, 3))),
        (range(5), 3, {0: 1, 1: 1, 2: 1}, 3, [(0, 1, 2), (2, 3, 4)], ((0, 3, 4),)),
        (range(3), 2, {}, 2, [(0, 1), (1, 2), (0, 2)], ()),
        (range(4), 3, {0: 1, 1: 1, 2: 1, 3: 2}, 2, [(0, 1, 2), (0, 1, 3)], ()),
    ],
)
def test_further_sets_leave_nobody_uncompared(
    members: range,
    threshold: int,
    asked: dict[int, int],
    limit: int,
    complete: list[tuple[int, ...]],
    expected: tuple[tuple[int, ...], ...],
) -> None:
    before = dict(asked)
    assert comparing(members, threshold, asked, limit, complete) == expected
    assert asked == before
    left = in_all([*complete, *expected])
    assert left == set(complete[0]).intersection(*complete, *expected)


# --- contexts -------------------------------------------------------------------------------------


def test_contexts_and_digests_are_of_everything_that_was_shown() -> None:
    terms = terms_for("threshold", 4)
    label = "fedmeta/threshold/v1/"
    assert context_of_key(terms) == terms.ctx2(b"", b"threshold: key")
    listed = (bytes([3, 0, 0, 0]), b"third", bytes([4, 1, 0, 0]), b"last")
    shown = {260: b"last", 3: b"third"}
    dealing = tagged_digest(label + "dealing", context_of_key(terms), *listed)
    assert context_of_dealing(terms, shown) == dealing
    assert context_of_check(dealing, shown) == tagged_digest(label + "check", dealing, *listed)
    assert digest_of_key(b"key") == tagged_digest(label + "key", b"key")
    assert context_under(terms, b"key") == terms.ctx2(digest_of_key(b"key"), b"threshold: star")
    assert context_of_pads(dealing, b"held") == tagged_digest(label + "pads", dealing, b"held")
    assert seed_of_check(dealing, 3, b"payload") == tagged_digest(
        label + "check of a dealing", dealing, bytes([3, 0, 0, 0]), b"payload"
    )
    assert digest_of_share(b"sealed") == tagged_digest(label + "sealed share", b"sealed")
    total = np.arange(12, dtype=np.uint64).reshape(3, 4)[:, ::2]
    expected = tagged_digest(label + "sum", words(0, 2, 4, 6, 8, 10))
    assert digest_of_sum(total) == expected
