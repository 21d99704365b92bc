"""Parameters of the threshold sum: exact, secure, and with noise that hides the keys.

A committee of m members, any t of which decrypt. Beside what he_parameters asks for, an answer of
a member carries smudging: integers in [-B, B], which hide the noise of the ciphertexts, and with it
the keys. Ring degree N = 8192 gives 128-bit security for up to 218 bits of modulus with ternary
secrets (HomomorphicEncryption.org security standard, table 1).

Exact: q > 2 T (E + t B), with T = 2^(lanes * lane) the plaintext modulus, E the bound of the noise
in a sum (noise_bound) and t B that of t answers.

Hidden: the answers of the honest members of a set are uniform but for their sum (threshold_pads:
AES stands behind this). It is c1 s less the known parts of the others, plus smudging, so that for
each coefficient there is noise + smudging where a simulator that knows the sum of the vectors alone
would give smudging, and further smudging does not take the two apart. Smudging is the sum of three
integers, each uniform on W = 2 B / 3 + 1 values. Let p(x) be its probabilities and

    D^2 = sum over x of (sqrt p(x + 1) - sqrt p(x))^2  <=  1.2 / W^2   (W odd, W >= 1001),

so that sqrt p and sqrt p shifted by v are |v| D apart in L2 at most, by the triangle inequality.
Where K coefficients are opened under one key, by whatever sets an aggregator asks for one after the
other, the affinities (the inner products of the roots) multiply at least, and for every v

    statistical distance  <=  sqrt(2 - 2 product of affinities)  <=  D |v|_2,

(|v|_2 over the K coefficients) since 1 - prod(1 - h) <= sum h. Over a random v, by Jensen's
inequality, it is at most D sqrt(K E v^2), and B is the least with

    sqrt(1.2 K E v^2) / W  <=  2^-40.

Uniform smudging would pay K E|v| / (2 B + 1): of shapes within an interval it is the worst for many
coefficients, as it has edges; that of three is within 4 % of the best, a squared cosine.

D^2, term by term with (sqrt a - sqrt b)^2 <= (a - b)^2 / (4 min(a, b)): W^3 p is (j + 1)(j + 2) / 2
at distance j < W from either edge, which gives (j + 2) / (2 (j + 1)) a step, and (3 W^2 + 1) / 4
less y^2 at distance y <= (W - 1) / 2 from the centre. Together (W + H_W + 2) / W^3 and, a Riemann
sum, the integral of y^2 / (3/4 - y^2) over [-1/2, 1/2], which is 0.141, over W^2: in all, where W
is large, 1.141 / W^2.

K counts every coefficient of every set that may ever be opened. A member answers in L = m - t + 1
sets at most. With c < t members on the aggregator's side a set has t - c honest ones at least, all
of which must answer in it: at most L (m - c) / (t - c) <= L^2 sets. Each opens every ciphertext; of
the test of the key, at one polynomial, there are twice as many. Members draw their parts of the key
honestly: a part that is too large is noise that this bound does not know.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from crypto.codec import Writer
from crypto.errors import TermsRefused
from crypto.he_parameters import (
    FAILURE_LOG2,
    MAX_PLAIN_BITS,
    MAX_PRIME_BITS,
    Parameters,
    ntt_primes,
)
from crypto.residues import BINOMIAL_PAIRS, SMUDGING_PARTS
from crypto.terms import Terms

DEGREE: Final = 8192
MAX_MEMBERS: Final = 15  # so that x * residue + residue fits 64 bits, x up to 15
HIDING_LOG2: Final = -40
_MAX_MODULUS_BITS: Final = 218
_SPECIAL_BITS: Final = 40
_NOISE_PER_CIPHERTEXT: Final = 1.0 + 2.0**-17
_MARGIN: Final = 1.0 + 2.0**-20
_SHAPE: Final = 1.2  # of D^2 = _SHAPE / W^2
_LEAST_PART: Final = 1 << 30  # so that W is large


@dataclass(frozen=True)
class ThresholdParameters:
    """One instance; every party computes it from its own terms.

    Attributes:
        scheme: the BFV instance that clients encrypt with.
        members: m, officers in the roster.
        threshold: t, members that decrypt.
        smudging: B, largest absolute value of the noise that an answer carries.
        hiding_log2: log2 of the proven distance between answers and their simulation.
        noise: largest noise of an honest sum, answers included: q / (2T) is above it.
    """

    scheme: Parameters
    members: int
    threshold: int
    smudging: int
    hiding_log2: float
    noise: float

    @property
    def answers(self) -> int:
        """Sets of members that one member answers in, at most."""
        return answers_of(self.members, self.threshold)

    def encode(self) -> bytes:
        """Encode strictly, for what is signed."""
        writer = Writer().fixed(self.scheme.encode(), len(self.scheme.encode()))
        writer.u8(self.members).u8(self.threshold)
        return writer.fixed(self.smudging.to_bytes(16, "little"), 16).done()


def answers_of(members: int, threshold: int) -> int:
    """One answer, and another for each member that may be lost: m - t + 1."""
    return members - threshold + 1


def openings_of(members: int, threshold: int) -> int:
    """Sets that fewer than t members and an aggregator get opened at most: (m - t + 1)^2."""
    return answers_of(members, threshold) ** 2


def choose(terms: Terms) -> ThresholdParameters:
    """The parameters with the fewest bytes per value.

    Raises:
        TermsRefused: the committee is not allowed, or no exact set exists; tells what to change.
    """
    members, threshold = len(terms.roster.officers), terms.committee_threshold
    check_committee(members, threshold)
    return parameters_for(terms.ring.bits, len(terms.cohort), terms.length, members, threshold)


def check_committee(members: int, threshold: int) -> None:
    """2 to 15 members, a majority of which decrypts.

    With 2t <= m a malicious aggregator could have one half of the members open the sum with a
    client and the other half that without it, and subtract. With c members on its side it can
    while 2t <= m + c: so a larger t withstands more of them and survives fewer losses, m - t.

    Raises:
        TermsRefused: naming the value and what is allowed.
    """
    if not 2 <= members <= MAX_MEMBERS:
        raise TermsRefused(
            f"the roster names {members} officers; allowed: a committee of 2 to {MAX_MEMBERS}"
        )
    least = members // 2 + 1
    if not least <= threshold <= members:
        raise TermsRefused(
            f"committee_threshold is {threshold} of {members} members; allowed: {least} to"
            f" {members}. With half of the committee or fewer, two sums of different clients could"
            " be opened, and their difference is one client's vector"
        )


@lru_cache(maxsize=64)
def parameters_for(
    lane: int, clients: int, length: int, members: int, threshold: int
) -> ThresholdParameters:
    """Parameters for sums of `clients` vectors of `length` values, each sum in `lane` bits.

    Raises:
        TermsRefused: no exact set exists.
    """
    most = _MAX_MODULUS_BITS - _SPECIAL_BITS
    best: ThresholdParameters | None = None
    needed = 0.0
    for lanes in range(MAX_PLAIN_BITS // lane, 0, -1):
        ciphertexts = -(-length // (DEGREE * lanes))
        smudging, hiding = smudging_for(clients, members, threshold, ciphertexts)
        noise = noise_bound(clients, members, ciphertexts) + threshold * float(smudging)
        needed = math.log2(2 * noise * _MARGIN) + lanes * lane
        for bits in range(math.ceil(needed), most + 1):
            primes = _primes(bits)
            if math.log2(math.prod(primes[:-1])) <= needed:
                continue
            scheme = Parameters(DEGREE, lane, lanes, primes[:-1], primes[-1], ciphertexts)
            found = ThresholdParameters(scheme, members, threshold, smudging, hiding, noise)
            if best is None or scheme.upload_bytes < best.scheme.upload_bytes:
                best = found
            break
    if best is None:
        raise TermsRefused(
            f"no exact parameters of degree {DEGREE} at 128-bit security for sums of {lane} bits"
            f" over {clients} clients, decrypted by {threshold} of {members}:"
            f" {math.ceil(needed)} bits of ciphertext modulus are needed, allowed: {most}, and"
            f" plaintexts of up to {MAX_PLAIN_BITS} bits. Lower the scale, the clip or the number"
            " of clients"
        )
    return best


def smudging_for(clients: int, members: int, threshold: int, ciphertexts: int) -> tuple[int, float]:
    """The least B that hides the noise, and log2 of the distance that is left."""
    coefficients = DEGREE * openings_of(members, threshold) * (ciphertexts + 2)
    leak = math.sqrt(_SHAPE * coefficients) * noise_deviation(clients, members)
    part = max(math.ceil(leak * 2.0**-HIDING_LOG2 * _MARGIN / 2), _LEAST_PART)
    return SMUDGING_PARTS * part, math.log2(leak) - math.log2(2 * part + 1)


def noise_deviation(clients: int, members: int) -> float:
    """A bound of the root mean square of one coefficient of the noise of a sum; see noise_bound.

    By Minkowski's inequality it is at most the bounded parts plus the standard deviation of the sum
    of the n r1 s, of which each coefficient has variance n E|s|^2 / 12, E|s|^2 = 2 m N / 3. The
    noise of the test, that of the public key, has sqrt(10.5 m), which is less.
    """
    weight = 2 * members * DEGREE / 3
    return max(
        clients * _NOISE_PER_CIPHERTEXT + math.sqrt(clients * weight / 12),
        math.sqrt(members * BINOMIAL_PAIRS / 2),
    )


def noise_bound(clients: int, members: int, ciphertexts: int) -> float:
    """E such that no coefficient of the noise in a sum exceeds it, except with 2^-128.

    As he_parameters.noise_bound, with a key that is the sum of the members' m ternary ones and the
    sum of their m errors: |v| <= 21 (2 m N + 1), which the special prime divides to less than
    2^-17, and for r1 s the weight |s|^2 in the place of h. Its N terms are independent, at most
    m^2 and of mean 2m/3, so that by Hoeffding P(|s|^2 > 2 m N / 3 + m^2 x) <= exp(-2 x^2 / N).
    """
    share = (1 - FAILURE_LOG2) * math.log(2)
    spread = members**2 * math.sqrt(DEGREE * share / 2)
    weight = min(float(DEGREE * members**2), 2 * members * DEGREE / 3 + spread)
    exponent = share + math.log(2 * DEGREE * ciphertexts)
    return clients * _NOISE_PER_CIPHERTEXT + math.sqrt(clients * weight * exponent / 6)


def _primes(bits: int) -> tuple[int, ...]:
    """Data primes of `bits` bits together, as few as can be, then the special prime."""
    count = -(-bits // MAX_PRIME_BITS)
    sizes = [bits // count + (at < bits % count) for at in range(count)]
    return ntt_primes(DEGREE, (*sizes, _SPECIAL_BITS))
