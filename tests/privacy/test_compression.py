"""Compressed sums: exact sensitivity for every unit, no bias, and the noise that is claimed.

Keys and seeds are fixed. Under fresh ones each statistical check would raise a false alarm with
probability ALPHA or less.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import norm

from privacy.accountant import Adversary, noise_variance
from privacy.clip import bounded_sum
from privacy.compression import SHORTENED, Compression, Kind, random_subset
from privacy.errors import CompressionRefused
from privacy.plan import PrivacyPlan
from privacy.rdp import skellam_rdp
from privacy.rng import SecureRandom
from tests.privacy.plans import with_noise
from tests.privacy.skellam_exact import renyi, shifted_pair

ALPHA = 1e-6
SEED = b"public"
SUBSET = Compression(kind=Kind.SUBSET, keep=0.3)
TERMS = {
    "none": Compression(),
    "rotated": Compression(rotate=True),
    "subset": SUBSET,
    "rotated subset": Compression(kind=Kind.SUBSET, rotate=True, keep=0.3),
    "low-rank": Compression(kind=Kind.LOW_RANK, rotate=True, keep=0.3),
}
every = pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS.keys())


def matrix(terms: Compression, parameters: int, seed: bytes, round_index: int) -> NDArray[Any]:
    """A, [m, d]."""
    return terms.basis(parameters, seed, round_index).forward(np.eye(parameters)).T


@every
@pytest.mark.parametrize("parameters", [37, 64, 200])
def test_rows_are_orthonormal_so_that_no_vector_gets_longer(
    terms: Compression, parameters: int
) -> None:
    a = matrix(terms, parameters, SEED, 1)
    image = terms.image(parameters)
    assert a.shape == (image.length, parameters)
    np.testing.assert_allclose(a @ a.T, np.eye(image.length), atol=1e-12)


@every
def test_the_way_back_is_the_transpose_times_the_gain(terms: Compression) -> None:
    a, basis = matrix(terms, 37, SEED, 1), terms.basis(37, SEED, 1)
    total = np.random.default_rng(1).standard_normal(len(a))
    expected = terms.image(37).gain * (a.T @ total)
    np.testing.assert_allclose(basis.backward(total), expected, atol=1e-12)


def test_which_maps_are_new_in_each_round() -> None:
    for name, terms in TERMS.items():
        one, two = matrix(terms, 64, SEED, 1), matrix(terms, 64, SEED, 2)
        assert np.array_equal(one, two) is (name in ("none", "low-rank")), name
        again, other = matrix(terms, 64, SEED, 1), matrix(terms, 64, b"another run", 1)
        assert np.array_equal(one, again)
        assert np.array_equal(one, other) is (name == "none"), name


@pytest.mark.parametrize("name", ["subset", "rotated subset"])
def test_a_subset_is_unbiased_over_the_rounds(name: str) -> None:
    """Mean over rounds of what comes back, per coordinate, at Bonferroni level ALPHA."""
    terms, rounds, parameters = TERMS[name], 4000, 40
    vector = np.linspace(-1.0, 1.0, parameters)
    found = np.empty((rounds, parameters))
    for index in range(rounds):
        basis = terms.basis(parameters, SEED, index)
        found[index] = basis.backward(basis.forward(vector[None])[0])
    error = found.std(axis=0) / math.sqrt(rounds)
    limit = norm.isf(ALPHA / 2 / parameters)
    assert (np.abs(found.mean(axis=0) - vector) <= limit * error).all()
    # Power: without the gain, or with a gain for another length, it fails.
    for wrong in (0.3, 0.9):
        assert not (np.abs(wrong * found.mean(axis=0) - vector) <= limit * error).all()
    # The relative error that plans state, within 5 %.
    relative = np.sqrt(np.square(found - vector).sum(axis=1).mean() / np.square(vector).sum())
    assert relative == pytest.approx(terms.image(parameters).missed, rel=0.05)


def test_low_rank_keeps_the_part_in_its_subspace_and_only_shrinks() -> None:
    terms = TERMS["low-rank"]
    basis, a = terms.basis(200, SEED, 1), matrix(terms, 200, SEED, 1)
    inside = a.T @ np.random.default_rng(2).standard_normal(len(a))
    np.testing.assert_allclose(basis.backward(basis.forward(inside[None])[0]), inside, atol=1e-12)
    vectors = np.random.default_rng(3).standard_normal((200, 200))
    back = np.array([basis.backward(row) for row in basis.forward(vectors)])
    assert (np.linalg.norm(back, axis=1) < np.linalg.norm(vectors, axis=1)).all()
    missed = np.linalg.norm(back - vectors) / np.linalg.norm(vectors)
    assert missed == pytest.approx(terms.image(200).missed, rel=0.02)


@pytest.mark.parametrize("parameters", [100, 1761, 4096])
@pytest.mark.parametrize("shape", ["one", "block", "normal"])
def test_images_are_rarely_longer_than_the_norm_that_is_kept(parameters: int, shape: str) -> None:
    """SHORTENED of the images at most, up to a binomial error at level ALPHA for 500 seeds."""
    vector = np.zeros((1, parameters))
    if shape == "one":
        vector[0, 3] = 1.0
    elif shape == "block":
        vector[0, : parameters // 3] = 1.0
    else:
        vector[0] = np.random.default_rng(4).standard_normal(parameters)
    vector /= np.linalg.norm(vector)
    terms = TERMS["rotated subset"]
    bound = terms.image(parameters).norm
    norms = np.array(
        [np.linalg.norm(terms.basis(parameters, SEED, k).forward(vector)) for k in range(500)]
    )
    assert (norms > bound).mean() <= SHORTENED + 5 * math.sqrt(SHORTENED / 500)
    # The bound is used: it is below twice what is usual, and clearly below 1.
    assert np.median(norms) > bound / 2
    assert bound < 0.9


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"keep": 0.5}, "without a kind"),
        ({"kind": Kind.SUBSET}, "needs the fraction"),
        ({"kind": Kind.SUBSET, "keep": 0.0}, "needs the fraction"),
        ({"kind": Kind.SUBSET, "keep": 1.0}, "needs the fraction"),
        ({"kind": Kind.SUBSET, "keep": math.nan}, "needs the fraction"),
        ({"kind": Kind.SUBSET, "keep": 1}, "needs the fraction"),
        ({"kind": Kind.LOW_RANK, "keep": 0.5}, "set rotate = true"),
    ],
)
def test_terms_that_contradict_each_other_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(CompressionRefused, match=named):
        Compression(**changes)


@pytest.mark.parametrize("parameters", [1, 2, 31])
def test_a_rotation_of_too_few_is_refused(parameters: int) -> None:
    with pytest.raises(CompressionRefused, match="set rotate = false"):
        Compression(rotate=True).image(parameters)
    assert Compression(rotate=True).image(32).coordinate < 1.0


def test_a_subset_of_everything_is_refused() -> None:
    assert SUBSET.image(2).length == 1
    with pytest.raises(CompressionRefused, match="keeps them all"):
        SUBSET.image(1)


def test_every_subset_is_alike() -> None:
    """How often each coordinate is kept, by chi-squared with d - 1 degrees, Bonferroni-free."""
    parameters, length, rounds = 20, 6, 4000
    counts = np.zeros(parameters)
    for index in range(rounds):
        chosen = random_subset(parameters, length, bytes([index % 256, index // 256]))
        assert len(set(chosen.tolist())) == length == len(chosen)
        assert (np.diff(chosen) > 0).all()
        counts[chosen] += 1
    share = length / parameters
    z = (counts - rounds * share) / math.sqrt(rounds * share * (1 - share))
    assert np.abs(z).max() < norm.isf(ALPHA / 2 / parameters)


# --- sensitivity --------------------------------------------------------------------------------

HUGE = np.finfo(np.float64).max
PARAMETERS = 48


def planned(terms: Compression, **changes: Any) -> PrivacyPlan:
    return with_noise(parameters=PARAMETERS, compression=terms, **changes)


def summed(plan: PrivacyPlan, units: NDArray[Any], key: bytes) -> NDArray[np.int64]:
    """The sum before noise, as `encode` takes it."""
    return bounded_sum(
        units,
        clip=plan.clip,
        forward=plan.basis(1).forward,
        scale=plan.scale,
        cap=plan.cap,
        delta=plan.l2,
        rng=SecureRandom.from_key(key),
    )


hostile = st.one_of(
    st.floats(width=64),
    st.sampled_from([0.0, -0.0, HUGE, -HUGE, 5e-324, np.inf, -np.inf, np.nan, 1.0, -1.0]),
)


def moved(plan: PrivacyPlan, others: NDArray[Any], unit: NDArray[Any], key: bytes) -> list[int]:
    """What one unit adds. It comes last, so that the coins of the others are the same without."""
    total = summed(plan, np.vstack([others, unit]), key) - summed(plan, others, key)
    return [int(value) for value in total]


@every
@pytest.mark.parametrize("bits", [None, 8, 13])
@given(
    others=arrays(np.float64, st.tuples(st.integers(0, 2), st.just(PARAMETERS)), elements=hostile),
    unit=arrays(np.float64, (1, PARAMETERS), elements=hostile),
    key=st.binary(min_size=32, max_size=32),
)
def test_no_unit_moves_the_sum_by_more_than_the_event_says(
    terms: Compression, bits: int | None, others: Any, unit: Any, key: bytes
) -> None:
    plan = planned(terms, value_bits=bits)
    change = moved(plan, others, unit, key)
    event = plan.worst_event()
    assert len(change) == event.dimension == plan.dimension
    assert sum(v * v for v in change) <= event.l2**2
    assert sum(abs(v) for v in change) <= event.l1
    assert max(abs(v) for v in change) <= plan.cap


def aligned(plan: PrivacyPlan, size: float) -> dict[str, NDArray[Any]]:
    """Units of somebody who knows the seed."""
    a = plan.basis(1).forward(np.eye(plan.parameters)).T
    signs = np.where(np.arange(len(a)) % 2 == 0, 1.0, -1.0)
    return {
        "one coordinate of the image": size * a[:1],
        "all coordinates of the image alike": size * signs[None] @ a,
        "one coordinate": size * np.eye(plan.parameters)[:1],
        "equal": np.full((1, plan.parameters), size),
    }


@every
@pytest.mark.parametrize("bits", [None, 8])
def test_a_unit_made_for_the_seed_comes_to_the_edge_and_not_beyond(
    terms: Compression, bits: int | None
) -> None:
    plan = with_noise(parameters=400, compression=terms, value_bits=bits)
    none = np.zeros((0, 400))
    reached = []
    for size in (1.0, 1e12, 1e300):
        for unit in aligned(plan, size).values():
            for key in range(5):
                change = moved(plan, none, unit, bytes([key]) * 32)
                reached.append(sum(v * v for v in change))
                assert reached[-1] <= plan.l2**2
                assert max(map(abs, change)) <= plan.cap
    # The bound is used: one that is far too wide would not notice a missing clip.
    assert max(reached) >= (0.9 * plan.l2) ** 2


@pytest.mark.parametrize("bits", [None, 8])
def test_without_the_integer_clip_an_aligned_unit_passes_the_bound(bits: int | None) -> None:
    """What the clip is for: the part of a vector that a subset keeps can be all of it."""
    plan = with_noise(parameters=400, compression=TERMS["rotated subset"], value_bits=bits)
    unit = aligned(plan, 1e12)["all coordinates of the image alike"]
    free = bounded_sum(
        unit,
        clip=plan.clip,
        forward=plan.basis(1).forward,
        scale=plan.scale,
        cap=plan.cap,
        delta=2**31 - 1,
        rng=SecureRandom.from_key(bytes(32)),
    )
    assert np.linalg.norm(free.astype(float)) > 1.05 * plan.l2


@every
def test_the_exact_divergence_of_a_hostile_unit_is_within_the_claim(terms: Compression) -> None:
    """Coordinate by coordinate from exact probabilities, for units made for the seed."""
    plan = planned(terms, value_bits=8, noise_multiplier=2.0)
    event = plan.worst_event()
    mu = noise_variance(event, Adversary.PARTICIPANTS)
    claim = skellam_rdp(event.l2, event.l1, mu)
    reach = math.ceil(14 * math.sqrt(mu))

    @cache
    def exact(shift: int, order: int) -> float:
        one, two = shifted_pair(mu, shift, reach)
        return max(renyi(one, two, order), renyi(two, one, order))

    none, closest = np.zeros((0, PARAMETERS)), 0.0
    for unit in aligned(plan, 1e12).values():
        change = [abs(v) for v in moved(plan, none, unit, bytes(32)) if v]
        for order in (2, 16):
            bound = float(claim[order - 2])
            found = sum(exact(shift, order) for shift in change)
            assert found <= bound
            closest = max(closest, found / bound)
    # The claim is close: a unit that moved the sum by a tenth more would break it.
    assert closest * 1.1**2 > 1.0


# --- what comes out -----------------------------------------------------------------------------


@every
@pytest.mark.parametrize("bits", [None, 8])
def test_the_decoded_sum_is_the_average_without_bias(terms: Compression, bits: int | None) -> None:
    """Encoded and decoded over 2,000 rounds by two clients; each coordinate at level ALPHA / d.

    Low rank is compared with the part of the average in its subspace.
    """
    plan = planned(terms, value_bits=bits, noise_multiplier=0.01, expected_units=3)
    rng = np.random.default_rng(5)
    units = rng.standard_normal((3, PARAMETERS))
    units *= 0.5 / np.linalg.norm(units, axis=1)[:, None]
    average = units.sum(axis=0) / 3
    if terms.kind is Kind.LOW_RANK:
        basis = plan.basis(1)
        average = basis.backward(basis.forward(average[None])[0])
    secret = [SecureRandom.from_key(bytes([k]) * 32) for k in (1, 2)]
    found = np.empty((2000, PARAMETERS))
    for index in range(len(found)):
        total = plan.encode(units[:2], secret[0], round_index=index)
        total += plan.encode(units[2:], secret[1], round_index=index)
        found[index] = plan.decode(total, round_index=index)
    error = found.std(axis=0) / math.sqrt(len(found))
    limit = norm.isf(ALPHA / 2 / PARAMETERS)
    assert (np.abs(found.mean(axis=0) - average) <= limit * error).all()
    assert not (np.abs(0.8 * found.mean(axis=0) - average) <= limit * error).all()


@every
@pytest.mark.parametrize("bits", [None, 8])
def test_the_noise_of_the_decoded_sum_is_that_of_the_event(
    terms: Compression, bits: int | None
) -> None:
    """Variance of empty sums over 400 rounds: chi-squared, two-sided at level ALPHA."""
    plan = with_noise(parameters=200, compression=terms, value_bits=bits)
    secret = [SecureRandom.from_key(bytes([k]) * 32) for k in range(8)]
    empty = np.zeros((0, 200))
    found = []
    for index in range(400):
        total = sum(plan.encode(empty, rng, round_index=index) for rng in secret)
        found.append(plan.decode(np.asarray(total), round_index=index))
    event, image = plan.worst_event(), terms.image(200)
    steps = event.survivors * event.share_variance
    power = image.length * steps * (image.gain / plan.scale / plan.expected_units) ** 2
    ratio = float(np.square(found).sum()) / (400 * power)
    limit = norm.isf(ALPHA / 2) * math.sqrt(2 / (400 * image.length))
    assert abs(ratio - 1) <= limit
    for wrong in (7 / 8, 0.5, image.gain**2 if image.gain > 1 else 4.0):  # a missing share, ...
        assert abs(wrong * ratio - 1) > limit


@every
def test_the_claim_is_that_of_the_dimension_that_is_summed(terms: Compression) -> None:
    plan = planned(terms)
    event = plan.worst_event()
    assert event.dimension == plan.dimension == terms.image(PARAMETERS).length
    assert event.l2 == plan.l2
    assert event.l1 == min(math.isqrt(plan.l2**2 * plan.dimension), plan.l2**2)
