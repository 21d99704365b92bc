"""From a run directory to an agent, and to the draws on which the run scored its held-out clients.

An agent needs the config and the model alone: not the data that the model was trained on.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secure_fedmeta.agent.agent import PersonalAgent
from secure_fedmeta.agent.contents import CAPACITY
from secure_fedmeta.agent.rows import Reader
from secure_fedmeta.agent.spec import AgentSpec
from secure_fedmeta.config import Config, load_config
from secure_fedmeta.errors import AgentError, DataError, RunDirectoryError
from secure_fedmeta.evaluation import Evaluation, Split
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.results import CONFIG, MODEL
from secure_fedmeta.tasks import Site, schema_of
from secure_fedmeta.tasks.protocol import Floats
from secure_fedmeta.vector import VectorRefused


def agent_of(directory: Path, *, capacity: int = CAPACITY) -> PersonalAgent:
    """A fresh agent on the model of a run.

    Args:
        directory: a run directory.
        capacity: own examples that the agent remembers.

    Raises:
        RunDirectoryError: it holds no model, or not that of its config.
        ConfigError: its config cannot be read, or names what is not installed.
        DataError: its source needs data that are not there.
    """
    config = load_config(directory / CONFIG)
    schema = schema_of(config.data.source, config.data.options)
    spec = AgentSpec.of(config, schema, run=directory.resolve().name)
    path = directory / MODEL
    try:
        held = path.read_bytes()
    except OSError as error:
        raise RunDirectoryError(
            f"{path} cannot be read ({error.strerror}): name the directory of a finished run"
        ) from error
    try:
        model = spec.build().personal.spec.load(held)
    except VectorRefused as error:
        raise RunDirectoryError(
            f"{path} is not the model that {directory / CONFIG} describes ({error}). A run with a "
            "module of its own is personalised from Python: see docs/bring-your-own-model.md"
        ) from error
    return PersonalAgent(spec, model, capacity=capacity)


@dataclass(frozen=True)
class Drawn:
    """Where one draw was written.

    Attributes:
        support: the file of examples to adapt on.
        test: the file of the others.
    """

    support: Path
    test: Path


def write_draws(directory: Path, client: str, out: Path, *, site: Site, most: int) -> list[Drawn]:
    """Write the draws of a held-out client as files that an agent reads.

    They come in the order of `held_out.meta.per_draw` of the report.

    Args:
        directory: a run directory.
        client: one of its held-out clients.
        out: a folder; made if missing.
        site: where the data lie, for a table or images of one's own.
        most: draws that are written, from the first.

    Raises:
        ConfigError, DataError: the data are not at hand, or are not those of the config.
        AgentError: the client is not held out, or files cannot be written.
    """
    config = load_config(directory / CONFIG)
    splits = _splits(config, client, site)
    schema = schema_of(config.data.source, config.data.options)
    spec = AgentSpec.of(config, schema, run=directory.resolve().name)
    writer = _writer(spec, config, site)
    width = max(3, len(str(len(splits))))
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number, split in enumerate(splits[:most], start=1):
            drawn = Drawn(
                out / f"draw-{number:0{width}d}-support.csv",
                out / f"draw-{number:0{width}d}-test.csv",
            )
            _write(drawn.support, writer(split.support_x, split.support_y))
            _write(drawn.test, writer(split.test_x, split.test_y))
            written.append(drawn)
    except OSError as error:
        raise AgentError(f"{out} cannot be written to ({error.strerror})") from error
    return written


def _write(path: Path, text: str) -> None:
    """Write a file that its owner alone can read, in place of what was there."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _splits(config: Config, client: str, site: Site) -> list[Split]:
    parts = assemble(config, site=site)
    if client not in parts.held_out:
        raise AgentError(
            f"client {client!r} was not held out, so that the run scored no draw of it; held out "
            f"are {', '.join(parts.held_out) or 'none'}"
        )
    evaluation = Evaluation(
        parts.source,
        [client],
        support=parts.source.info.k_support,
        repeats=config.evaluation.repeats,
    )
    return evaluation.splits


_Writer = Callable[[Floats, NDArray[np.generic]], str]


def _writer(spec: AgentSpec, config: Config, site: Site) -> _Writer:
    reader = Reader(spec)
    header = [*reader.columns, reader.target]
    if spec.columns is None:
        return lambda x, y: _csv(header, _by_name(x, y, whole=spec.classes is not None))
    kept = _kept(reader, site.folder / str(config.data.options["path"]))

    def rows(x: Floats, y: NDArray[np.generic]) -> Iterator[list[str]]:
        for row, target in zip(x, y.astype(np.float32), strict=True):
            try:
                yield kept[_key(row, target)]
            except KeyError:
                raise DataError("the table is not the one that the draws are from") from None

    return lambda x, y: _csv(header, rows(x, y))


def _by_name(x: Floats, y: NDArray[np.generic], *, whole: bool) -> Iterator[list[str]]:
    """Cells that read back to the same float32; classes as whole numbers."""
    for row, target in zip(x.tolist(), y.tolist(), strict=True):
        yield [*map(repr, row), str(int(target)) if whole else repr(target)]


def _kept(reader: Reader, path: Path) -> dict[tuple[bytes, bytes], list[str]]:
    """Input and target, bit by bit -> the cells of a row of the table that gives them."""
    found = {}
    for row in reader.each(path):
        if row.y is not None:
            cells = [row.cells[name] for name in (*reader.columns, reader.target)]
            found[_key(row.x, np.float32(row.y))] = cells
    return found


def _key(x: Floats, y: np.float32) -> tuple[bytes, bytes]:
    return x.astype(np.float32).tobytes(), np.float32(y).tobytes()


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
