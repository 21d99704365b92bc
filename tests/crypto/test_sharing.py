"""Degrees and thresholds: exact conditions against floating-point tails of another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from crypto.errors import TermsRefused
from crypto.secure_sum import SECURE_SUMS
from crypto.sharing import _safe_threshold, broken_condition, check_sharing, choose_sharing
from crypto.terms import Sharing
from tests.crypto.harness import another, make_terms


def log2_tail(population: int, marked: int, drawn: int, least: int) -> float:
    """log2 of P[at least so many marked ones among the drawn], summed term by term."""
    terms = hypergeom.logpmf(np.arange(max(least, 0), drawn + 1), population, marked, drawn)
    return float(np.logaddexp.reduce(terms) / math.log(2))


def chances(n: int, c: int, q: int, sharing: Sharing) -> tuple[float, float, float]:
    """log2 of the chances that conditions (i), (ii) and (iii) bound, from scipy."""
    k, t = sharing.degree, sharing.threshold
    one_opening = math.log2(n) + log2_tail(q, c, k + 1, 2 * t - k - 1)
    one_sum = 2 * math.log2(n) - 1 + 2 * log2_tail(q, c, k // 2, t - k // 2 - 1)
    alive = math.log2(n) + log2_tail(n, n - q, k + 1, k + 2 - t)
    return one_opening, one_sum, alive


TABLE = [
    # clients, per cent of colluders, per cent that may drop: degree, threshold
    (150, 10, 10, 62, 48),
    (200, 10, 10, 82, 63),
    (1_000, 1, 10, 84, 54),
    (1_000, 5, 10, 138, 99),
    (1_000, 10, 10, 182, 136),
    (10_000, 1, 10, 122, 81),
    (10_000, 5, 10, 176, 125),
    (10_000, 10, 10, 238, 176),
    (100_000, 1, 10, 130, 86),
    (100_000, 5, 10, 192, 136),
]


@pytest.mark.parametrize(("n", "colluders", "drops", "degree", "threshold"), TABLE)
def test_the_table_of_rings(
    n: int, colluders: int, drops: int, degree: int, threshold: int
) -> None:
    """Each row meets the conditions, and no smaller degree does with any threshold."""
    c, q = n * colluders // 100, n - n * drops // 100
    found = choose_sharing(n, c, q)
    assert found == Sharing(degree, threshold)
    one_opening, one_sum, alive = chances(n, c, q, found)
    assert one_opening <= -120
    assert one_sum <= -120
    assert alive <= -30
    smaller = degree - 2
    for t in range(smaller // 2 + 2, smaller + 2):
        one_opening, one_sum, alive = chances(n, c, q, Sharing(smaller, t))
        assert one_opening > -120 or one_sum > -120 or alive > -30


@pytest.mark.parametrize(
    ("n", "degree", "threshold"), [(1_000, 156, 113), (10_000, 216, 157), (100_000, 234, 169)]
)
def test_smaller_published_degrees_do_not_withstand_chosen_drops(
    n: int, degree: int, threshold: int
) -> None:
    """They hold neighbourhoods together about as promised, with everybody there, and can be cut."""
    sharing = Sharing(degree, threshold)
    one_opening, one_sum, _ = chances(n, n // 10, n, sharing)
    assert one_opening <= -115
    assert one_sum > -107
    one_opening, _, alive = chances(n, n // 10, n - n // 10, sharing)
    assert one_opening > -108
    assert alive <= -30
    assert broken_condition(n, n // 10, n - n // 10, sharing) is not None


@given(data=st.data())
def test_conditions_are_those_of_the_tails(data: st.DataObject) -> None:
    n = data.draw(st.integers(101, 3_000))
    c = data.draw(st.integers(0, n // 4))
    q = data.draw(st.integers(n // 2, n))
    k = 2 * data.draw(st.integers(1, 127))
    t = data.draw(st.integers(k // 2 + 2, k + 1))
    broken = broken_condition(n, c, q, Sharing(k, t))
    if not (k + 2 <= q and 2 * q > n + c):
        assert broken is not None
        assert "min_survivors" in broken
        return
    one_opening, one_sum, alive = chances(n, c, q, Sharing(k, t))
    if min(abs(one_opening + 120), abs(one_sum + 120), abs(alive + 30)) < 1e-6:
        return
    assert (broken is None) == (one_opening <= -120 and one_sum <= -120 and alive <= -30)


@pytest.mark.parametrize(
    ("n", "c", "q", "k"),
    [
        (150, 15, 135, 62),
        (1_000, 100, 900, 182),
        (3_000, 30, 2_000, 120),
        (10_000, 500, 9_000, 200),
    ],
)
def test_the_first_condition_that_is_broken_is_told(n: int, c: int, q: int, k: int) -> None:
    """At every threshold, and so on both sides of each border."""
    words = ("two openings", "cut the ring", "random drops")
    told = []
    for t in range(k // 2 + 2, k + 2):
        found = zip(chances(n, c, q, Sharing(k, t)), (-120, -120, -30), words, strict=True)
        expected = next((word for chance, most, word in found if chance > most), None)
        broken = broken_condition(n, c, q, Sharing(k, t))
        assert (broken is None) if expected is None else (broken is not None and expected in broken)
        told.append(expected)
    assert set(told) >= {"two openings", "cut the ring"}


@given(q=st.integers(60, 400), more=st.integers(1, 200), c=st.integers(0, 50), k=st.integers(2, 28))
def test_fewer_that_advertise_are_the_worst_case(q: int, more: int, c: int, k: int) -> None:
    """(i) and (ii) at min_survivors hold for every larger U1: the tails fall."""
    for drawn in (2 * k + 1, k):
        for least in range(1, drawn + 1, 3):
            few, many = (log2_tail(m, c, drawn, least) for m in (q, q + more))
            assert many <= few + 1e-9


def test_colluders_in_disjoint_half_neighbourhoods_are_negatively_associated() -> None:
    """The product of the two chances is an upper bound of the chance of both, exactly."""
    m, c, half = 40, 8, 5
    for least in range(1, 5):
        both = 0.0
        for first in range(least, half + 1):
            rest = hypergeom.sf(least - 1, m - half, c - first, half)
            both += hypergeom.pmf(first, m, c, half) * rest
        assert both <= hypergeom.sf(least - 1, m, c, half) ** 2 + 1e-15


@pytest.mark.parametrize("clients", [3, 50, 100])
def test_up_to_100_clients_the_graph_is_complete(clients: int) -> None:
    assert choose_sharing(clients, 0, clients).degree == clients - 1


def test_up_to_255_clients_the_graph_is_complete_where_no_ring_will_do() -> None:
    assert choose_sharing(101, 10, 90).degree < 100
    assert choose_sharing(200, 60, 140) == Sharing(199, 134)
    with pytest.raises(TermsRefused, match="allowed: 131 to 200"):
        choose_sharing(200, 60, 130)


@pytest.mark.parametrize(
    ("clients", "colluders", "survivors", "match"),
    [
        (256, 100, 200, "no degree up to 254 keeps the promises for 256 clients with 100 coll"),
        (1_000, 100, 700, "random drops could leave somebody below the threshold"),
        (100_000, 10_000, 90_000, "lower max_colluders or raise min_survivors"),
        (1_000, 0, 500, "allowed min_survivors: 501 to 1000"),
    ],
)
def test_where_nothing_fits_the_reason_is_told(
    clients: int, colluders: int, survivors: int, match: str
) -> None:
    with pytest.raises(TermsRefused, match=match):
        choose_sharing(clients, colluders, survivors)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"degree": 63}, "even"),
        ({"degree": 256}, "from 2 to 254"),
        ({"degree": 60}, "degree 60 with threshold 48"),
        ({"threshold": 47}, "raise the threshold"),
        ({"threshold": 49}, "random drops"),
        ({"threshold": 64}, "allowed thresholds of degree 62: 33 to 63"),
        ({"threshold": 32}, "allowed thresholds of degree 62: 33 to 63"),
        ({"max_colluders": 17}, "raise the threshold"),
        ({"min_survivors": 120}, "random drops|raise the threshold"),
        ({"min_survivors": 151}, "min_survivors is 151"),
    ],
)
def test_a_ring_that_breaks_a_condition_is_refused(changes: dict[str, int], match: str) -> None:
    terms = make_terms(150, max_colluders=15, threshold=48, min_survivors=135, degree=62)
    check_sharing(terms)
    SECURE_SUMS["masking"].check(terms)
    for name in ("masking", "plain"):
        with pytest.raises(TermsRefused, match=match):
            SECURE_SUMS[name].check(another(terms, **changes))


def test_a_complete_graph_has_at_most_255_clients() -> None:
    check_sharing(make_terms(255))
    with pytest.raises(TermsRefused, match="allowed: up to 255"):
        check_sharing(make_terms(256))


@pytest.mark.parametrize("degree", [6, 16, 24, 40])
@pytest.mark.parametrize("colluders", [0, 5, 20, 40])
@pytest.mark.parametrize("clients", [101, 110, 150])
def test_the_threshold_is_the_smallest_that_is_safe(
    clients: int, colluders: int, degree: int
) -> None:
    for survivors in (clients * 6 // 10, clients * 8 // 10, clients - 2):
        expected = degree + 1
        for threshold in reversed(range(degree // 2 + 2, degree + 1)):
            sharing = Sharing(degree, threshold)
            broken = broken_condition(clients, colluders, survivors, sharing)
            if broken is not None and "raise the threshold" in broken:
                break
            expected = threshold
        assert _safe_threshold(clients, colluders, survivors, degree) == expected
