"""Time of noise, and of all that a client does to its units, per sample and per coordinate.

`skellam`, `discrete-gaussian` and `gaussian` (rounded; it refuses the small variance)
draw one share of 1,000,000 coordinates from the product's generator (AES-256, keyed by the
operating system). The peers are the difference of two
`numpy.random.Generator.poisson` under PCG64, which is no generator for secrets, and under ChaCha
with 20 rounds (randomgen), which is one. `encode` is clip, rounding, integer clip, sum and noise
of a client's units in float32, through the plan. All run in turn. Times are processor times of
this process, which works on one core: nanoseconds per coordinate that a core is busy.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from randomgen import ChaCha

from benchmarks._common import Timing, arguments, in_turn, machine, report, versions
from privacy.noise import SAMPLERS
from privacy.plan import PrivacyPlan
from privacy.rng import SecureRandom

COORDINATES = 1_000_000
ROUNDS = 21
VARIANCES = {"small": 2.0**-10, "1e2": 1e2, "1e10": 1e10, "largest": 2.0**50}
REFERENCE = "1e10"  # near what a plan asks for at this dimension
UNITS = (1, 8)
PEERS = ("numpy_pcg64", "numpy_chacha20")


def samplers(variance: float) -> dict[str, Callable[[], object]]:
    """Ours and the peers, each drawing one share."""
    rng = SecureRandom.from_os()
    peers = {
        "numpy_pcg64": np.random.default_rng(),
        "numpy_chacha20": np.random.Generator(
            ChaCha(key=int.from_bytes(os.urandom(32), "little"), rounds=20)
        ),
    }

    def ours(name: str) -> Callable[[], object]:
        return lambda: SAMPLERS[name](variance, COORDINATES, rng)

    def theirs(generator: np.random.Generator) -> Callable[[], object]:
        mean = variance / 2
        return lambda: generator.poisson(mean, COORDINATES) - generator.poisson(mean, COORDINATES)

    able = [name for name in SAMPLERS if name != "gaussian" or variance >= 1.0]
    return {name: ours(name) for name in able} | {
        name: theirs(generator) for name, generator in peers.items()
    }


def encoders(seed: int) -> dict[str, Callable[[], object]]:
    """A client's whole encoding of 1 and of 8 units, all of which are clipped."""
    plan = PrivacyPlan.from_noise_multiplier(
        noise_multiplier=8.0,
        delta=1e-5,
        rounds=100,
        clip=1.0,
        parameters=COORDINATES,
        expected_units=80,
        max_units_per_client=max(UNITS),
        clients=10,
        min_survivors=8,
        max_colluders=1,
        person_units=1,
    )
    rng = SecureRandom.from_os()
    generator = np.random.default_rng(seed)

    def of(units: int) -> Callable[[], object]:
        rows = generator.standard_normal((units, COORDINATES), dtype=np.float32)
        return lambda: plan.encode(rows, rng, round_index=0)

    return {f"encode_{units}": of(units) for units in UNITS}


def nanoseconds(timing: Timing) -> dict[str, float]:
    """Distribution over the repeats, in ns per coordinate."""
    low, _, high = statistics.quantiles(timing.seconds, n=4)
    figures = {
        "median_ns": timing.median,
        "fastest_ns": min(timing.seconds),
        "lower_quartile_ns": low,
        "upper_quartile_ns": high,
        "slowest_ns": max(timing.seconds),
    }
    return {name: round(value / COORDINATES * 1e9, 2) for name, value in figures.items()}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = arguments(__doc__ or "").parse_args(argv)
    by_variance = {
        label: in_turn(samplers(variance), rounds=ROUNDS, clock=time.process_time)
        for label, variance in VARIANCES.items()
    }
    encoding = in_turn(encoders(options.seed), rounds=ROUNDS, clock=time.process_time)
    ratios = {
        f"{label}_{name}_vs_{peer}": round(timings[peer].median / timings[name].median, 2)
        for label, timings in by_variance.items()
        for name in SAMPLERS
        if name in timings
        for peer in PEERS
    }
    skellam = nanoseconds(by_variance[REFERENCE]["skellam"])
    result = {
        "benchmark": "noise",
        "skellam_ns_per_sample": skellam["median_ns"],
        "encode_ns_per_coordinate": nanoseconds(encoding["encode_1"])["median_ns"],
        "encode_8_units_ns_per_coordinate": nanoseconds(encoding["encode_8"])["median_ns"],
        "ratios": ratios,
        "samplers": {
            label: {name: nanoseconds(timing) for name, timing in timings.items()}
            for label, timings in by_variance.items()
        },
        "encode": {name: nanoseconds(timing) for name, timing in encoding.items()},
        "variances": VARIANCES,
        "coordinates": COORDINATES,
        "repeats": ROUNDS,
        "machine": machine(),
        "versions": versions("numpy", "cryptography", "randomgen", "secure-fedmeta"),
        "seed": options.seed,
    }
    lines = [
        f"variance {label:8s} {name:18s} {nanoseconds(timing)['median_ns']:8.1f} ns per sample"
        for label, timings in by_variance.items()
        for name, timing in timings.items()
    ]
    lines += [
        f"{name:36s} {nanoseconds(timing)['median_ns']:8.1f} ns per coordinate"
        for name, timing in encoding.items()
    ]
    report(result, lines=lines, quiet=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
