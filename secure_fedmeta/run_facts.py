"""What a run trained, and in which surroundings: the parts of a report that hold no result."""

from __future__ import annotations

import platform
import sys
from typing import Any

import torch

from secure_fedmeta.pipeline import Parts
from secure_fedmeta.provenance import code_digest, environment_digest


def trained(parts: Parts) -> dict[str, Any]:
    """Learner, network, loss and examples, as plain data.

    The network is told by the shapes of its tensors: the caller may have brought one of their own.
    Where data that are not public come from is not told.
    """
    config, info = parts.config, parts.source.info
    return {
        "learner": parts.learner.name,
        "inner_steps": config.learner.inner_steps,
        "inner_lr": config.learner.inner_lr,
        "server": config.server.optimiser,
        "loss": parts.loss if isinstance(parts.loss, str) else "the caller's own",
        "network": {name: list(one.shape) for name, one in parts.module.named_parameters()},
        "support": info.k_support,
        "query": info.k_query,
        "adapt_steps": config.evaluation.adapt_steps,
        "local_steps": config.evaluation.local_steps,
        "repeats": config.evaluation.repeats,
        "provenance": info.provenance if info.public else None,
        "licence": info.licence if info.public else None,
    }


def surroundings(parts: Parts) -> dict[str, str]:
    """Versions, and the digests that the log's first entry holds too."""
    return {
        "config_digest": parts.config.digest().hex(),
        "code_digest": code_digest().hex(),
        "lock_digest": environment_digest().hex(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{sys.platform} {platform.machine()}",
        "device": str(parts.config.compute.device),
    }
