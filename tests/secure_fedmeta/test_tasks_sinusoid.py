"""The sinusoid source: curves of the paper, and what grows without changing the rest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.tasks import SOURCES, Site, TaskBlock, build_source, check_options

SMALL = {"clients": 3, "persons": 4, "held_out_clients": 2, "points": 25}


def blocks(**options: object) -> dict[str, TaskBlock]:
    source = build_source("sinusoid", {**SMALL, **options})
    return {block.id: block for name in source.clients() for block in source.client(name).blocks}


def frequency_of(block: TaskBlock) -> tuple[float, float, float, float]:
    """The best w of a fine grid, amplitude, phase and residual of a sin(w x) + b cos(w x)."""
    x, y = block.x[:, 0].astype(np.float64), block.y.astype(np.float64)
    fits = []
    for w in np.linspace(0.75, 1.25, 1001):
        design = np.stack([np.sin(w * x), np.cos(w * x)], axis=1)
        (a, b), residual, *_ = np.linalg.lstsq(design, y, rcond=None)
        fits.append((float(residual[0]), w, math.hypot(a, b), math.atan2(b, a) % (2 * math.pi)))
    residual, w, amplitude, phase = min(fits)
    return w, amplitude, phase, residual


def curve(block: TaskBlock) -> tuple[float, float, float]:
    """Amplitude, phase and residual of the least-squares fit of a sin(x) + b cos(x)."""
    x = block.x[:, 0].astype(np.float64)
    design = np.stack([np.sin(x), np.cos(x)], axis=1)
    (a, b), residual, *_ = np.linalg.lstsq(design, block.y.astype(np.float64), rcond=None)
    return math.hypot(a, b), math.atan2(-b, a) % (2 * math.pi), float(residual[0])


def test_defaults_are_a_thousand_people_and_held_out_ones() -> None:
    source = build_source("sinusoid", {})
    training = [name for name in source.clients() if name not in source.info.held_out]
    assert len(training) == 20
    assert sum(len(source.client(name).blocks) for name in training) == 1000
    assert len(source.info.held_out) == 4
    assert (source.info.k_support, source.info.k_query) == (10, 10)
    assert source.info.units == {"record", "task", "user", "client"}


def test_every_block_is_one_sine_of_the_papers_ranges() -> None:
    amplitudes, phases = [], []
    for block in blocks(persons=100).values():
        amplitude, phase, residual = curve(block)
        assert residual < 1e-9
        amplitudes.append(amplitude)
        phases.append(phase)
    assert 0.1 <= min(amplitudes) < 0.3
    assert 4.8 < max(amplitudes) <= 5.0 + 1e-6
    assert min(phases) < 0.1
    assert 3.0 < max(phases) <= math.pi + 1e-6
    # 500 uniform values: the mean is within 4 standard errors.
    assert np.mean(amplitudes) == pytest.approx(2.55, abs=4 * 4.9 / math.sqrt(12 * 500))
    assert np.mean(phases) == pytest.approx(math.pi / 2, abs=4 * math.pi / math.sqrt(12 * 500))


def test_the_other_variant_has_a_frequency_and_shares_the_rest() -> None:
    """Curves are A sin(w x + phase) of Meta-SGD's ranges, for people who are otherwise the same."""
    plain, other = blocks(persons=6), blocks(persons=6, variant="meta-sgd")
    found = [frequency_of(block) for block in other.values()]
    frequencies = [w for w, *_ in found]
    assert max(residual for *_, residual in found) < 0.02
    assert 0.8 <= min(frequencies) < 0.85
    assert 1.15 < max(frequencies) <= 1.2
    for name, (_, amplitude, phase, _) in zip(other, found, strict=True):
        assert np.array_equal(plain[name].x, other[name].x)
        assert (amplitude, phase) == pytest.approx(curve(plain[name])[:2], rel=0.02, abs=0.02)


def test_points_cover_the_interval() -> None:
    x = np.concatenate([block.x for block in blocks(persons=100).values()])
    counts, _ = np.histogram(x, bins=10, range=(-5, 5))
    expected = len(x) / 10
    # 9 degrees of freedom, 0.999 quantile; the data seed is fixed.
    assert ((counts - expected) ** 2 / expected).sum() < 27.9


def test_a_larger_federation_leaves_the_curves_as_they_are() -> None:
    small, large = blocks(), blocks(clients=5, persons=6, held_out_clients=3)
    assert small.keys() < large.keys()
    for name, block in small.items():
        assert np.array_equal(block.y, large[name].y)


def test_held_out_people_are_others() -> None:
    curves = {curve(block)[:2] for block in blocks().values()}
    assert len(curves) == 5 * 4


def test_another_data_seed_gives_other_curves() -> None:
    one, two = blocks(), blocks(data_seed=1)
    assert all(not np.array_equal(one[name].y, two[name].y) for name in one)


def test_the_generated_data_are_pinned() -> None:
    """Independent of machine and numpy version up to float rounding."""
    block = blocks()["client-000/00000"]
    order = np.argsort(block.x[:, 0])
    assert block.x[order[:3], 0].tolist() == pytest.approx(
        [-4.6242185, -4.3111434, -4.12502], abs=1e-6
    )
    assert block.y[order[:3]].tolist() == pytest.approx([2.6564751, 3.5363061, 3.9005873], abs=1e-6)


def test_a_point_without_a_person_is_refused() -> None:
    first, *rest = build_source("sinusoid", SMALL).records()
    with pytest.raises(DataError, match="names no user"):
        SOURCES.get("sinusoid")(
            check_options("sinusoid", SMALL),
            site=Site(),
            records=[replace(first, user=None), *rest],
        )


def test_more_draws_than_points_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"data\.options: k_support 20 \+ k_query 10 exceed points 25"
    ):
        build_source("sinusoid", {**SMALL, "k_support": 20})
