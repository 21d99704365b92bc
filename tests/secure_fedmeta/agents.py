"""Agents for tests: small models with settings of every kind, and keys that cost little."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crypto.locked_file import FileKey
from secure_fedmeta.agent import AgentSpec, PersonalAgent
from secure_fedmeta.tasks.protocol import Floats

KEY = FileKey(bytes(range(32)))
INPUTS = 3
KINDS = {
    "binary": {"loss": "cross_entropy", "metric": "auc", "outputs": 1},
    "classes": {"loss": "cross_entropy", "metric": "accuracy", "outputs": 3},
    "number": {"loss": "mse", "metric": "mse", "outputs": 1},
}


def spec_of(kind: str = "binary", **changes: Any) -> AgentSpec:
    """A small spec; `changes` of model and rule by their own names."""
    outputs = KINDS[kind]["outputs"]
    model = {
        "name": "linear",
        "inputs": INPUTS,
        "outputs": outputs,
        "hidden": (),
        "init_seed": 0,
    }
    rule = {
        "algorithm": "maml",
        "trained_steps": 1,
        "rate_scale": 1.0,
        "steps": 3,
        "lr": 0.2,
        "local_steps": 20,
        "local_lr": 0.2,
    }
    plain: dict[str, Any] = {
        "run": "tiny",
        "source": "test",
        "loss": KINDS[kind]["loss"],
        "metric": KINDS[kind]["metric"],
        "k_support": 4,
        "features": tuple(f"x{number}" for number in range(INPUTS)),
        "low": -5.0,
        "high": 5.0,
        "columns": None,
    }
    for key, value in changes.items():
        part = next(part for part in (model, rule, plain) if key in part)
        part[key] = value
    return AgentSpec.model_validate({**plain, "model": model, "rule": rule})


def agent_of(kind: str = "binary", *, capacity: int = 1000, **changes: Any) -> PersonalAgent:
    """An agent on a model that is not the public start, of this kind of target."""
    spec = spec_of(kind, **changes)
    size = spec.build().personal.spec.size
    model = 0.3 * torch.randn(size, generator=torch.Generator().manual_seed(3))
    return PersonalAgent(spec, model, capacity=capacity)


def examples(
    kind: str, count: int, *, seed: int = 0, slope: float = 1.0, noise: float = 0.3
) -> tuple[Floats, Floats]:
    """Examples of one user, who differs from others by the slope."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, INPUTS)).astype(np.float32)
    value = slope * (x @ np.array([1.0, -2.0, 0.5])) + noise * rng.normal(size=count)
    if kind == "number":
        return x, value.astype(np.float32)
    if kind == "binary":
        return x, (value > 0).astype(np.float32)
    return x, np.digitize(value, [-0.5, 0.5]).astype(np.float32)


def key_file(folder: Path, value: bytes = bytes(range(32)), name: str = "agent.key") -> str:
    """A key file that its owner alone can read."""
    path = folder / name
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(value)
    return str(path)
