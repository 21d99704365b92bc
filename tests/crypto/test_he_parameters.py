"""BFV parameters: the design's table, exactness, refusals; and noise as it is against its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given
from hypothesis import strategies as st

from crypto.errors import Malformed, TermsRefused
from crypto.he_packing import from_coefficients, to_coefficients
from crypto.he_parameters import (
    DEGREE,
    FAILURE_LOG2,
    REFUSAL_LOG2,
    Parameters,
    choose,
    is_prime,
    noise_bound,
    parameters_for,
    primes_of,
)
from crypto.he_seal import Encryptor, KeyPair, Scheme, SealFailed, scheme_for
from tests.crypto.harness import make_terms

# value bits, clients, bits of data primes (None: any two), values per coefficient, bytes per value
ROWS = [
    (8, 10, (59,), 4, 3.69),
    (8, 32, (32, 32), 4, 4.0),
    (8, 100, (58,), 3, 4.84),
    (8, 1000, None, 3, 5.75),
    (12, 10, (59,), 3, 4.92),
    (12, 32, None, 3, 5.25),
    (12, 100, (35, 35), 3, 5.84),
    (12, 1000, (59,), 2, 7.38),
    (16, 10, (51,), 2, 6.38),
    (16, 32, (54,), 2, 6.75),
    (16, 100, (59,), 2, 7.38),
    (16, 1000, None, 2, 8.38),
    (20, 10, (59,), 2, 7.38),
    (20, 32, (31, 31), 2, 7.75),
    (20, 100, None, 2, 8.38),
    (20, 1000, (45,), 1, 11.25),
]


@pytest.mark.parametrize(("bits", "clients", "primes", "lanes", "size"), ROWS)
def test_no_set_takes_more_bytes_than_the_table(
    bits: int, clients: int, primes: tuple[int, ...] | None, lanes: int, size: float
) -> None:
    chosen = parameters_for(bits + math.ceil(math.log2(clients)), clients, 1_000_000)
    assert chosen.lanes == lanes
    assert chosen.upload_bytes / (chosen.ciphertexts * chosen.values) <= size
    assert chosen.upload_bytes / 1_000_000 <= size * 1.02
    if primes is not None:
        assert tuple(q.bit_length() for q in chosen.data_primes) == primes


@pytest.mark.parametrize(("clients", "overhead"), [(10, 11), (32, 12), (100, 13), (1000, 15)])
def test_the_bound_asks_for_what_was_measured_to_suffice(clients: int, overhead: int) -> None:
    needed = 2 * noise_bound(clients, 123, failure_log2=FAILURE_LOG2)
    assert math.ceil(math.log2(needed)) == overhead


@given(lane=st.integers(2, 59), clients=st.integers(3, 2000), length=st.integers(1, 2_000_000))
def test_every_chosen_set_is_exact_and_secure(lane: int, clients: int, length: int) -> None:
    try:
        chosen = parameters_for(lane, clients, length)
    except TermsRefused:
        assert lane > 57
        return
    q = math.prod(chosen.data_primes)
    for factor, failure_log2 in ((2, FAILURE_LOG2), (4, REFUSAL_LOG2)):
        bound = noise_bound(clients, chosen.ciphertexts, failure_log2=failure_log2)
        assert q > factor * bound * 2**chosen.plain_bits
    assert math.prod(chosen.key_primes).bit_length() <= 109
    assert chosen.plain_bits <= 59
    assert chosen.ciphertexts * chosen.values >= length
    assert len({*chosen.key_primes}) == len(chosen.key_primes)
    assert all(is_prime(p) and p % (2 * DEGREE) == 1 for p in chosen.key_primes)
    assert all(p.bit_length() <= 60 for p in chosen.key_primes)


@pytest.mark.parametrize(("lane", "clients"), [(60, 3), (62, 12), (59, 1000), (58, 5000)])
def test_what_no_set_can_hold_is_refused(lane: int, clients: int) -> None:
    with pytest.raises(TermsRefused, match=rf"sums of {lane} bits over {clients} clients.*allowed"):
        parameters_for(lane, clients, 1000)


def test_parameters_follow_from_terms() -> None:
    terms = make_terms(5, bits=20, length=10_000)
    assert choose(terms) == parameters_for(20, 5, 10_000)
    assert choose(terms).encode() != parameters_for(20, 5, 20_000).encode()


def test_primes() -> None:
    sieve = [n for n in range(2000) if n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))]
    assert [n for n in range(2000) if is_prime(n)] == sieve
    assert is_prime(2**61 - 1)
    for composite in (3215031751, 2**61 + 1, (2**31 - 1) ** 2, 3825123056546413051):
        assert not is_prime(composite)
    assert [p.bit_length() for p in primes_of(59)[0]] == [59]
    assert [p.bit_length() for p in primes_of(61)[0]] == [31, 30]


@pytest.mark.parametrize("bits", [49, 59, 60, 61, 73])
def test_primes_are_those_of_seal(bits: int) -> None:
    data, special = primes_of(bits)
    sizes = [p.bit_length() for p in (*data, special)]
    assert {*data, special} == {m.value() for m in seal.CoeffModulus.Create(DEGREE, sizes)}


def test_seal_refuses_more_than_its_security_level_allows() -> None:
    (data, special), (other, _) = primes_of(60), primes_of(59)
    with pytest.raises(SealFailed):
        Scheme(Parameters(DEGREE, 20, 2, (*data, *other), special, 1))


@given(data=st.data())
def test_packed_sums_read_back(data: st.DataObject) -> None:
    """Whatever single vectors are, a sum in range comes back from the sum of coefficients mod t."""
    lane = data.draw(st.integers(2, 59))
    clients = data.draw(st.integers(3, 9))
    length = data.draw(st.integers(1, 200)) + data.draw(st.sampled_from([0, DEGREE, 3 * DEGREE]))
    chosen = parameters_for(min(lane, 56), clients, length)
    half = 1 << (chosen.lane - 1)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sums = rng.integers(-half, half, length)
    sums[:2] = (-half, half - 1)[: min(2, length)]
    vectors = rng.integers(-half, half, (clients, length))
    vectors[-1] = sums - vectors[:-1].sum(axis=0)
    modulus = np.uint64((1 << chosen.plain_bits) - 1)
    added = np.zeros((chosen.ciphertexts, DEGREE), dtype=np.uint64)
    for vector in vectors:
        added = (added + to_coefficients(vector, chosen)) & modulus
    np.testing.assert_array_equal(from_coefficients(added, chosen, length), sums)


def test_something_behind_the_vector_is_refused() -> None:
    chosen = parameters_for(20, 3, 100)
    coefficients = to_coefficients(np.ones(101, dtype=np.int64), chosen)
    with pytest.raises(Malformed, match="behind the end"):
        from_coefficients(coefficients, chosen, 100)


@pytest.mark.parametrize(("lane", "clients"), [(20, 3), (23, 100), (13, 32), (59, 10)])
def test_noise_of_a_sum_stays_below_its_bound(lane: int, clients: int) -> None:
    """Measured on all coefficients of a sum of the largest size, with messages at both ends."""
    chosen = parameters_for(lane, clients, DEGREE)
    scheme = scheme_for(chosen)
    keys = KeyPair(scheme)
    encryptor = Encryptor(scheme, keys.public)
    half = 1 << (lane - 1)
    share = (half - 1) // clients
    vector = np.resize(np.array([share, -share, 0, 1], dtype=np.int64), DEGREE)
    primes = np.array(chosen.data_primes, dtype=np.uint64)[:, None]
    added = np.zeros((2, len(primes), DEGREE), dtype=np.uint64)
    for _ in range(clients):
        words = encryptor.encrypt(to_coefficients(vector, chosen)[0])
        assert (words < primes).all()
        added = (added + words) % primes
    coefficients, budget = keys.decrypt(added)
    found = from_coefficients(coefficients[None], chosen, DEGREE)
    np.testing.assert_array_equal(found, vector * clients)
    largest = math.log2(math.prod(chosen.data_primes)) - chosen.plain_bits - 1 - budget
    assert largest - 1 <= math.log2(noise_bound(clients, 1, failure_log2=FAILURE_LOG2))
    assert 1 <= budget <= 6
