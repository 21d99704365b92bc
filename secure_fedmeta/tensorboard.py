"""Scalars for TensorBoard: figures that metrics and report hold anyway, and no others.

Names are listed one by one, so that a figure that metrics gain later is not shown by itself.
Nothing of a single client is among them, nor any training loss but the protected ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.tasks import SourceInfo

FOLDER: Final = "tensorboard"
EVENTS: Final = "events.out.tfevents.run"
_OF_ROUND: Final = {
    "epsilon": "epsilon/worst",
    "granted": "epsilon/granted",
    "clip": "round/clip",
    "survivors": "round/survivors",
    "seconds": "round/seconds",
    "unadapted": "held_out/unadapted",
    "adapted": "held_out/adapted",
}
_ARMS: Final = ("no_adaptation", "local_k", "local_all", "fedavg_ft", "meta")


class TensorBoard:
    """Writes the scalars of a run; an Instrument.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "needs the package tensorboard: pip install 'secure-fedmeta[tensorboard]'",
                key="--tensorboard",
            ) from error
        self._make = SummaryWriter
        self._writer: SummaryWriter | None = None
        self._folder = Path()
        self._round = 0
        self._before: Sequence[Mapping[str, Any]] = ()

    def check(self, info: SourceInfo) -> None:
        """Every figure is one that the run releases whatever its data are."""

    @contextmanager
    def watching(self, directory: Path) -> Iterator[None]:
        """Write as rounds end; at the end the file loses the machine's name from its own."""
        self._folder = directory / FOLDER
        for left in self._folder.glob("events.out.tfevents.*"):
            left.unlink()
        self._writer = writer = self._make(log_dir=str(self._folder))
        for record in self._before:
            self.round_done(record)
        try:
            yield
        finally:
            writer.close()
            for written in self._folder.glob("events.out.tfevents.*"):
                written.rename(self._folder / EVENTS)

    def resumed(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Earlier rounds are written again, in place of what another process wrote."""
        self._before = tuple(records)

    def round_done(self, record: Mapping[str, Any]) -> None:
        """The round's scalars."""
        self._round = record["round"]
        self._add(scalars(record))

    def finished(self, report: Mapping[str, Any]) -> None:
        """The closing scores of all arms, at the last round."""
        self._add(closing(report))

    def lines(self) -> list[str]:
        """Where the files are, and what opens them."""
        return [f"Scalars: {self._folder} (tensorboard --logdir {self._folder})"]

    def _add(self, values: Iterator[tuple[str, float]]) -> None:
        if self._writer is None:
            return
        for name, value in values:
            self._writer.add_scalar(name, value, self._round)
        self._writer.flush()


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of one line of metrics.jsonl; what is null or missing is left out."""
    for key, name in _OF_ROUND.items():
        if record.get(key) is not None:
            yield name, record[key]
    for adversary, value in record.get("epsilon_by_adversary", {}).items():
        yield f"epsilon/{adversary}", value
    for metric, found in record.get("protected", {}).items():
        yield f"protected/{metric}", found["value"]
        yield f"protected/{metric}_noise_std", found["noise_std"]


def closing(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Mean score of each arm of a report."""
    for arm in _ARMS:
        found = report["held_out"][arm]
        if found is not None and found["mean"] is not None:
            yield f"closing/{arm}", found["mean"]
