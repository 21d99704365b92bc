"""BFV parameters for one exact sum: chosen from its ring and its clients, or refused with a reason.

A coefficient of the plaintext holds `lanes` values of `lane` bits, the integer sum of
v_j * 2^(lane*j) modulo t = 2^(lanes*lane). Adding is linear, so only the SUM of a lane must be in
[-2^(lane-1), 2^(lane-1) - 1], and that is what a Ring of `lane` bits has proved, noise tails
included. Ring degree N = 4096 gives 128-bit security for up to 109 bits of modulus with ternary
secrets (HomomorphicEncryption.org security standard, table 1). The special prime belongs to the
public key alone: encryption divides by it, ciphertexts do not carry it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from crypto.codec import Writer
from crypto.errors import TermsRefused
from crypto.terms import Terms

DEGREE: Final = 4096
MAX_PLAIN_BITS: Final = 59  # SEAL holds a plaintext modulus in 60 bits, 2^59 is the largest power
MAX_PRIME_BITS: Final = 60
FAILURE_LOG2: Final = -128
REFUSAL_LOG2: Final = -40
_SPECIAL_BITS: Final = {1: 49, 2: 36}
_DATA_BITS: Final = {1: 60, 2: 73}  # with the special prime 109 bits in all
_NOISE_PER_CIPHERTEXT: Final = 1.0 + 2.0**-17
_MARGIN: Final = 1.0 + 2.0**-20  # rounding of the formulas here, and SEAL's RNS rounding (2^-58)


@dataclass(frozen=True)
class Parameters:
    """One BFV instance; every party computes it from its own terms.

    Attributes:
        degree: ring degree N, a power of two.
        lane: bits of one value in the sum.
        lanes: values per coefficient.
        data_primes: primes of the ciphertext modulus q.
        special_prime: the prime that only the public key carries.
        ciphertexts: how many hold one vector.
    """

    degree: int
    lane: int
    lanes: int
    data_primes: tuple[int, ...]
    special_prime: int
    ciphertexts: int

    @property
    def plain_bits(self) -> int:
        """log2 of the plaintext modulus t."""
        return self.lane * self.lanes

    @property
    def key_primes(self) -> tuple[int, ...]:
        """Primes of the public key's modulus."""
        return (*self.data_primes, self.special_prime)

    @property
    def values(self) -> int:
        """Values per ciphertext."""
        return self.degree * self.lanes

    @property
    def upload_bytes(self) -> int:
        """Size of one client's packed ciphertexts."""
        packed = sum(2 * self.degree * q.bit_length() // 8 for q in self.data_primes)
        return self.ciphertexts * packed

    def encode(self) -> bytes:
        """Encode strictly, for the message that holds the public key."""
        writer = Writer().u32(self.degree).u8(self.lane).u8(self.lanes).u8(len(self.key_primes))
        for prime in self.key_primes:
            writer.u64(prime)
        return writer.u32(self.ciphertexts).done()


def choose(terms: Terms) -> Parameters:
    """The parameters with the fewest bytes per value that decrypt every sum exactly.

    Raises:
        TermsRefused: no exact set exists for these bits and clients; tells what to lower.
    """
    return parameters_for(terms.ring.bits, len(terms.cohort), terms.length)


@lru_cache(maxsize=64)
def parameters_for(lane: int, clients: int, length: int) -> Parameters:
    """Parameters for sums of `clients` vectors of `length` values, each sum in `lane` bits.

    Taken is the largest number of lanes for which a large enough ciphertext modulus q exists within
    128-bit security (see least_quotient): a value takes about (lane + log2(q / t) / lanes) / 4
    bytes.

    Raises:
        TermsRefused: no exact set exists.
    """
    for lanes in range(MAX_PLAIN_BITS // lane, 0, -1):
        ciphertexts = -(-length // (DEGREE * lanes))
        needed = least_quotient(clients, ciphertexts)
        for bits in range(lane * lanes + 1, _DATA_BITS[2] + 1):
            data, special = primes_of(bits)
            # t is a power of two, so that this product of floats is exact
            if math.prod(data) > needed * 2.0 ** (lane * lanes):
                return Parameters(DEGREE, lane, lanes, data, special, ciphertexts)
    raise TermsRefused(
        f"no exact BFV parameters of degree {DEGREE} at 128-bit security for sums of {lane} bits"
        f" over {clients} clients: {_least_bits(lane, clients, length)} bits of ciphertext modulus"
        f" are needed, allowed: {_DATA_BITS[2]}, and plaintexts of up to {MAX_PLAIN_BITS} bits."
        " Lower the scale, the clip or the number of clients"
    )


def least_quotient(clients: int, ciphertexts: int) -> float:
    """What q/t must exceed: 2 B at 2^-128, for exactness, and 4 B at 2^-40, for the officer's test.

    SEAL tells the noise in whole bits, and the officer refuses a sum in which it may be half of
    q / (2t) or more (B: noise_bound). So honest noise never gives a wrong sum, and ends an attempt
    with probability at most 2^-40.
    """
    exact = 2 * noise_bound(clients, ciphertexts, failure_log2=FAILURE_LOG2)
    accepted = 4 * noise_bound(clients, ciphertexts, failure_log2=REFUSAL_LOG2)
    return max(exact, accepted) * _MARGIN


def noise_bound(clients: int, ciphertexts: int, *, failure_log2: int) -> float:
    """B such that no noise in a sum exceeds B, except with probability 2^failure_log2.

    The sum of n fresh public-key encryptions decrypts to (q/t) M + E, and exactly to M mod t when
    |E| < q / (2t). SEAL encrypts zero modulo q*p, c0 + c1 s = v with |v| <= 21 (2N + 1) (ternary
    secrets, binomial errors of at most 21), divides by the special prime p with rounding, and adds
    the message scaled by q/t with rounding. Hence per ciphertext

        E = v/p - r0 - r1 s + r2,   |v/p| < 2^-17,  |r0|, |r2| <= 1/2,

    where r1 = (c1 mod p)/p, centred, is a polynomial. All but r1 s is bounded outright. For r1:
    c1 = a u + e1 with a, u and e1 independent of s is a sample of ring-LWE, so that r1 is uniform
    on the multiples of 1/p in (-1/2, 1/2), to any efficient test that knows s, such as this one
    (the probability below grows by at most n times the advantage against ring-LWE). Of such a
    variable E exp(x r) <= sinh(x/2) / (x/2) <= exp(x^2/24). A coefficient of the sum of the n r1 s
    is a sum of n h independent ones, h the number of non-zero coefficients of s, so

        P(|coefficient| >= a) <= 2 exp(-6 a^2 / (n h)),

    and by Hoeffding P(h > 2N/3 + x) <= exp(-2 x^2 / N). Each of the two, the first over all
    coefficients of all ciphertexts, is given half of the probability. For 10, 32, 100 and 1000
    clients the bound at 2^-128 asks for log2 q - log2 t = 11, 12, 13 and 15.
    """
    share = (1 - failure_log2) * math.log(2)
    weight = min(float(DEGREE), 2 * DEGREE / 3 + math.sqrt(DEGREE * share / 2))
    exponent = share + math.log(2 * DEGREE * ciphertexts)
    return clients * _NOISE_PER_CIPHERTEXT + math.sqrt(clients * weight * exponent / 6)


@lru_cache(maxsize=128)
def primes_of(bits: int) -> tuple[tuple[int, ...], int]:
    """Data primes of `bits` bits together, one up to 60 bits and else two, and a special prime.

    All are congruent to 1 mod 2N, as the number-theoretic transform needs, distinct, and the
    largest of their size.
    """
    sizes = (bits,) if bits <= MAX_PRIME_BITS else (bits - bits // 2, bits // 2)
    *data, special = ntt_primes(DEGREE, (*sizes, _SPECIAL_BITS[len(sizes)]))
    return tuple(data), special


def ntt_primes(degree: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """For each size in bits the largest prime that is 1 mod 2 * degree and not taken before."""
    found: list[int] = []
    for size in sizes:
        candidate = (1 << size) - 2 * degree + 1
        while candidate in found or not is_prime(candidate):
            candidate -= 2 * degree
        found.append(candidate)
    return tuple(found)


def is_prime(candidate: int) -> bool:
    """Whether an integer below 2^64 is prime: Miller-Rabin with the first twelve primes as bases.

    No composite below 3.3 * 10^24 passes (Sorenson and Webster, Math. Comp. 86, 2017).
    """
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if candidate < 2 or any(candidate % base == 0 for base in bases):
        return candidate in bases
    odd = candidate - 1
    halvings = (odd & -odd).bit_length() - 1
    odd >>= halvings
    for base in bases:
        power = pow(base, odd, candidate)
        if power in (1, candidate - 1):
            continue
        for _ in range(halvings - 1):
            power = power * power % candidate
            if power == candidate - 1:
                break
        else:
            return False
    return True


def _least_bits(lane: int, clients: int, length: int) -> int:
    return lane + math.ceil(math.log2(least_quotient(clients, -(-length // DEGREE))))
