"""Checkpoints: everything that a run goes on from, in one safetensors file of the run directory.

A checkpoint holds what follows from released sums and public settings, and no secret. It is written
when an attempt ends, before the log says so:

    ledger commit -> NEXT is durable -> log entry -> NEXT takes the place of FILE

so that no release in the log lacks its model, and a checkpoint that the log does not confirm is
thrown away. A seal under a key of the state directory binds all of it to the run.
"""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from audit import files
from secure_fedmeta.errors import ConfigError, RunDirectoryError
from secure_fedmeta.metrics import Mark
from secure_fedmeta.server_opt import ServerState

VERSION: Final = 1
FILE: Final = "checkpoint.safetensors"
NEXT: Final = "checkpoint.next.safetensors"
_TRAFFIC: Final = "traffic"
_FACTS: Final = "fedmeta-checkpoint"
_SEAL: Final = "seal"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands once an attempt has ended.

    Attributes:
        run: 32 bytes that name the run.
        round: of the attempt, from 1.
        attempt: from 1.
        outcome: how it ended.
        intent: digest of its logged intent, hexadecimal; None without one.
        model: digest of the model that the next round starts from, hexadecimal.
        state: of the server's optimiser.
        clip: the clip bound of the next round.
        record: the attempt's line for metrics.jsonl, without scores, which follow from the model.
        metrics: how far metrics.jsonl had come before that line.
        traffic: bytes sent and received by each party so far, in roster order: `[parties, 2]`
            int64.
        seconds: that the rounds took so far.
    """

    run: bytes
    round: int
    attempt: int
    outcome: Literal["released", "aborted"]
    intent: str | None
    model: str
    state: ServerState
    clip: float
    record: Mapping[str, Any]
    metrics: Mark
    traffic: Tensor
    seconds: float

    def encode(self, key: bytes) -> bytes:
        """The file: the same bytes for the same checkpoint.

        Args:
            key: seals it.
        """
        facts = {
            "version": VERSION,
            "run": self.run.hex(),
            "round": self.round,
            "attempt": self.attempt,
            "outcome": self.outcome,
            "intent": self.intent,
            "model": self.model,
            "clip": self.clip,
            "record": self.record,
            "metrics": [self.metrics.size, self.metrics.digest],
            "seconds": self.seconds,
        }
        text = json.dumps(facts, allow_nan=False, sort_keys=True)
        tensors = {**self.state.tensors(), _TRAFFIC: self.traffic}
        bare = save_tensors(tensors, {_FACTS: text})
        seal = bytearray(hmac.digest(key, bare, "sha256"))
        sealed = tensors | {_SEAL: torch.frombuffer(seal, dtype=torch.uint8)}
        return save_tensors(sealed, {_FACTS: text})

    @classmethod
    def decode(cls, data: bytes, key: bytes) -> Checkpoint:
        """The checkpoint of a file that `encode` wrote under this key.

        Raises:
            RunDirectoryError: of another version, or not exactly such a file.
        """
        try:
            found = cls._read(data)
            whole = hmac.compare_digest(found.encode(key), data)
        except (
            ConfigError,
            SafetensorError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RuntimeError,
        ) as error:
            raise RunDirectoryError(f"it is no checkpoint, or damaged ({error!r})") from error
        if not whole:
            raise RunDirectoryError("it is damaged, or of another run")
        return found

    @classmethod
    def _read(cls, data: bytes) -> Checkpoint:
        facts = json.loads(_header(data)["__metadata__"][_FACTS])
        if facts.pop("version") != VERSION:
            raise RunDirectoryError(
                f"it is of another version; this release reads {VERSION}: resume with the release "
                "that began the run"
            )
        tensors = load_tensors(data)
        traffic, _ = tensors.pop(_TRAFFIC), tensors.pop(_SEAL)
        clip, seconds = float(facts.pop("clip")), float(facts.pop("seconds"))
        if not (math.isfinite(clip) and math.isfinite(seconds)):
            raise ValueError("a figure is not finite")
        return cls(
            run=bytes.fromhex(facts.pop("run")),
            state=ServerState.from_tensors(tensors),
            clip=clip,
            metrics=Mark(*facts.pop("metrics")),
            traffic=traffic,
            seconds=seconds,
            **facts,
        )


def _header(data: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file: its length in 8 bytes little-endian, then the text."""
    length = int.from_bytes(data[:8], "little")
    found: dict[str, Any] = json.loads(data[8 : 8 + length])
    return found


class Checkpoints:
    """The two files of a run directory.

    Args:
        directory: of the run.
        key: seals them.
    """

    def __init__(self, directory: Path, key: bytes) -> None:
        self._current, self._next = directory / FILE, directory / NEXT
        self._key = key

    def __repr__(self) -> str:
        return f"Checkpoints({str(self._current.parent)!r}, redacted)"

    def put(self, checkpoint: Checkpoint) -> None:
        """Keep what holds once the log confirms it; durable on return.

        Raises:
            RunDirectoryError: it is not known to be durable.
        """
        try:
            files.replace(self._next, checkpoint.encode(self._key), mode=0o644)
        except OSError as error:
            raise _not_durable(self._next, error) from error

    def confirm(self) -> None:
        """The log has confirmed what was put last: it takes the place of the one before.

        Raises:
            RunDirectoryError: it is not known to be durable.
        """
        try:
            self._next.replace(self._current)
            files.sync_directory(self._current.parent)
        except OSError as error:
            raise _not_durable(self._current, error) from error

    def current(self) -> Checkpoint | None:
        """What was confirmed last; None where nothing was.

        Raises:
            RunDirectoryError: it cannot be read, or was changed.
        """
        return self._load(self._current)

    def unconfirmed(self) -> Checkpoint | None:
        """What was put and not confirmed; None where nothing was.

        Raises:
            RunDirectoryError: it cannot be read, or was changed.
        """
        return self._load(self._next)

    def discard(self) -> None:
        """Throw away what was put and not confirmed."""
        self._next.unlink(missing_ok=True)

    @staticmethod
    def forget(directory: Path) -> None:
        """The run has ended: nothing goes on from here."""
        for name in (FILE, NEXT):
            (directory / name).unlink(missing_ok=True)

    def _load(self, path: Path) -> Checkpoint | None:
        try:
            return Checkpoint.decode(path.read_bytes(), self._key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunDirectoryError(f"{path} cannot be read ({error.strerror})") from error
        except RunDirectoryError as error:
            raise RunDirectoryError(f"{path}: {error}") from error


def traffic_of(rows: Tensor, parties: int) -> Tensor:
    """Checked traffic of a checkpoint: `[parties, 2]` int64.

    Raises:
        RunDirectoryError: another shape or dtype.
    """
    if rows.shape != (parties, 2) or rows.dtype != torch.int64:
        raise RunDirectoryError(f"the checkpoint counts traffic of another run than {parties}")
    return rows


def _not_durable(path: Path, error: OSError) -> RunDirectoryError:
    return RunDirectoryError(
        f"{path} is not durable ({error.strerror}), so that the run does not go on: make room, or "
        "mend the disk, and resume the run"
    )
