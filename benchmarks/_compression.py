"""The sinusoid example at 8, 12 and 16 value bits and with fewer coordinates: bytes and score.

Trainings are of the integers that every secure sum adds, added in clear: the models are the same
bit for bit (tests/secure_fedmeta/test_pipeline.py), and the encryption of thousands of uploads is
saved. Nothing is tuned here: all settings but `[compression]` are the example's, which were chosen
on data seed 100 without compression, and that seed is not among the reported ones. Epsilon is 3 in
every arm.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from statistics import fmean

from crypto.he_parameters import parameters_for
from privacy.distortion import distortion
from secure_fedmeta.config import load_config
from secure_fedmeta.evaluation import Evaluation, Interval
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.scoring import personaliser, train_in_clear_as_planned

SEEDS = 3
LARGE = 1_000_000
"""Values at which the bytes per value of `he` are stated: the example fills one ciphertext."""

_QUARTER = ("compression.rotate=true", "compression.keep=0.25")
ARMS: Mapping[str, tuple[str, ...]] = {
    "chosen": (),
    **{f"bits_{bits}": (f"compression.value_bits={bits}",) for bits in (8, 12, 16)},
    **{
        f"rotated_{bits}": (f"compression.value_bits={bits}", "compression.rotate=true")
        for bits in (8, 12, 16)
    },
    "subset_8": ("compression.value_bits=8", "compression.kind=subset", *_QUARTER),
    "low_rank_8": ("compression.value_bits=8", "compression.kind=low-rank", *_QUARTER),
}


def compression(first_seed: int) -> dict[str, dict[str, object]]:
    """Bytes, distortion and held-out error of every arm over SEEDS data seeds.

    Args:
        first_seed: the first of the data seeds, which are also those of the initial weights.

    Returns:
        Arm -> "mse" (mean over seeds), "per_seed", "values" and "ring_bits" of the sum,
        "masking_bytes" and "he_bytes" of one upload, "he_bytes_per_value" of a large model,
        "distortion" (relative, noise-free) and "rounding_vs_noise".
    """
    example = Path(str(resources.files("secure_fedmeta.templates") / "sinusoid.toml"))
    table: dict[str, dict[str, object]] = {}
    for arm, overrides in ARMS.items():
        scores = []
        for seed in range(first_seed, first_seed + SEEDS):
            print(f"compression: {arm}, data seed {seed}", file=sys.stderr, flush=True)
            seeds = [f"data.options.data_seed={seed}", f"model.init_seed={seed}"]
            parts = assemble(load_config(example, [*overrides, *seeds]))
            model = train_in_clear_as_planned(parts, parts.learner, Randomness())
            held_out = Evaluation(
                parts.source,
                parts.held_out,
                support=parts.source.info.k_support,
                repeats=parts.config.evaluation.repeats,
            )
            scores.append(Interval.over(held_out.adapted(personaliser(parts), model)).mean)
        plan, bits = parts.plan, parts.ring.bits
        lost = distortion(plan)
        table[arm] = {
            "mse": fmean(scores),
            "per_seed": scores,
            "values": plan.dimension,
            "ring_bits": bits,
            "masking_bytes": parts.ring.packed_size(plan.dimension),
            "he_bytes": parameters_for(bits, plan.clients, plan.dimension).upload_bytes,
            "he_bytes_per_value": parameters_for(bits, plan.clients, LARGE).upload_bytes / LARGE,
            "distortion": lost.relative,
            "rounding_vs_noise": lost.rounding / lost.noise,
        }
    return table
