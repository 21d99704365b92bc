"""The integers of a plan, which follow from its terms and are checked against them."""

from __future__ import annotations

from dataclasses import dataclass

from privacy.calibrate import MIN_MULTIPLIER
from privacy.clip import MAX_BOUND, MAX_DELTA, MIN_BOUND
from privacy.compression import Compression
from privacy.errors import PlanRefused
from privacy.events import MAX_INT
from privacy.extras import Extras
from privacy.noise import MAX_VARIANCE
from privacy.rdp import l1_bound
from privacy.scale import steps
from privacy.terms import check_int, check_real, honest_shares, variance_of_share, vectors_of


@dataclass(frozen=True, kw_only=True)
class Derived:
    """See `PrivacyPlan`, which has these as fields of its own."""

    dimension: int
    scale: float
    cap: int
    share_variance: float
    l2: int
    l1: int


def derive(
    *,
    noise: str,
    noise_multiplier: float,
    clip: float,
    parameters: int,
    compression: Compression,
    value_bits: int | None,
    extras: Extras,
    tasks_per_user: int | None,
    clients: int,
    min_survivors: int,
    max_colluders: int,
    max_units_per_client: int,
) -> Derived:
    """What follows from the terms of a plan.

    Raises:
        PlanRefused, CompressionRefused: terms for which there are no sane integers.
    """
    check_real("clip", clip, MIN_BOUND, MAX_BOUND)
    check_int("parameters", parameters, 1, MAX_DELTA)
    check_real("noise_multiplier", noise_multiplier, MIN_MULTIPLIER / 2.0, MAX_VARIANCE)
    image = compression.image(parameters)
    chosen = steps(clip, image, value_bits, extras)
    dimension = image.length + extras.count
    l2 = vectors_of(tasks_per_user) * chosen.l2
    honest = honest_shares(noise, clients, min_survivors, max_colluders)
    l1, variance = l1_bound(l2, dimension), variance_of_share(noise_multiplier, l2, honest)
    check_int("l2 (steps that the clipped norm spans)", l2, 1, MAX_DELTA)
    if max_units_per_client * l2 > MAX_INT or l1 > MAX_INT:
        raise PlanRefused(f"sums of vectors with norm {l2} do not fit: take fewer value_bits")
    if not 0.0 < variance <= MAX_VARIANCE:
        raise PlanRefused(
            f"one client's noise would need variance {variance!r}, allowed is up to 2^50: take "
            "fewer value_bits, or ask for less noise"
        )
    return Derived(
        dimension=dimension,
        scale=chosen.scale,
        cap=chosen.cap,
        share_variance=variance,
        l2=l2,
        l1=l1,
    )
