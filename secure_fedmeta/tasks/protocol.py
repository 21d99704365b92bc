"""What a task source is: clients with disjoint blocks of records, one block for each task.

A *record* is one labelled example with a stable id. A *block* is the set of records that one task
may ever use: support and query are redrawn inside it each round, and no record is in two blocks.
This disjointness is what a claim for the unit task or record rests on, so that a source whose
`info.units` names them must pass tests/contracts/test_task_source.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from secure_fedmeta.tasks.site import Site

Floats: TypeAlias = NDArray[np.float32]
Draw: TypeAlias = tuple[Floats, Floats, Floats, Floats]


class SourceOptions(BaseModel):
    """Base of a source's options: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True, eq=False)
class Record:
    """One labelled example.

    Attributes:
        id: stable and unique inside the source; replacing a record keeps it.
        client: the client that holds the record.
        user: the person behind the record where a person may have several; else None.
        x: inputs, `[features] float32`, inside the source's declared bounds.
        y: target; 0 or 1 for a binary source.
    """

    id: str
    client: str
    user: str | None
    x: Floats
    y: float


@dataclass(frozen=True, eq=False)
class TaskBlock:
    """The records of one task.

    Attributes:
        id: unique inside the source.
        user: the one person whose records these are; None where every record is another's.
        x: inputs, `[n, features] float32`.
        y: targets, `[n] float32`.
    """

    id: str
    user: str | None
    x: Floats
    y: Floats

    def __len__(self) -> int:
        """The number of records."""
        return len(self.y)


@dataclass(frozen=True, eq=False)
class ClientData:
    """What one client holds.

    Attributes:
        name: the client's name, fit for a file name.
        blocks: its tasks, sorted by id; each holds enough records for one draw.
        x: all its inputs, `[rows, features] float32`, those of blocks too small for a task too.
        y: all its targets, `[rows] float32`.
    """

    name: str
    blocks: tuple[TaskBlock, ...]
    x: Floats
    y: Floats


@dataclass(frozen=True)
class SourceInfo:
    """What a source declares and counts.

    Every count is exact. For a source that is not `public` counts are statistics of raw data and
    must not leave the client.

    Attributes:
        rows: records that the clients hold.
        clients: number of clients, the ones held out included.
        tasks: number of blocks that hold enough records.
        task_bounds: client -> public bound on its number of tasks, the same whatever the records.
        units: the units of privacy that the blocks can carry (record, task, user, client).
        lacking: unit that they cannot carry -> why not, and what to change.
        licence: the data's licence.
        provenance: where the data come from, in one sentence.
        files: shipped file -> SHA-256 (hex) of its bytes; checked whenever the file is read.
        public: whether the data are public, so that counts may be shown.
        features: the name of each input.
        input_bounds: lowest and highest value of any input, declared without looking at the data.
        output_dim: outputs of the model: one logit for a binary target, one value for a real one.
        loss: the loss that fits the target.
        metric: what evaluation reports.
        k_support: support records for one draw.
        k_query: query records for one draw.
        balanced: whether draws are as even over the labels as a block allows.
        held_out: clients that the source itself keeps for evaluation; empty where folds decide.
        excluded: reason -> number of records, or of blocks, left out.
        clipped: column -> number of values above the declared bound that were set to it.
        missing: column -> number of missing values, coded as the data dictionary declares.
    """

    rows: int
    clients: int
    tasks: int
    task_bounds: Mapping[str, int]
    units: frozenset[str]
    licence: str
    provenance: str
    public: bool
    features: tuple[str, ...]
    input_bounds: tuple[float, float]
    output_dim: int
    loss: Literal["mse", "cross_entropy"]
    metric: Literal["auc", "average_precision", "mse", "accuracy"]
    k_support: int
    k_query: int
    balanced: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)
    excluded: Mapping[str, int] = field(default_factory=dict)
    clipped: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    @property
    def input_dim(self) -> int:
        """The number of inputs."""
        return len(self.features)


class TaskSource(Protocol):
    """Clients and their tasks."""

    name: str

    @property
    def info(self) -> SourceInfo:
        """What the source declares and counts."""
        ...

    def clients(self) -> tuple[str, ...]:
        """The names of all clients, sorted; the held-out ones are among them."""
        ...

    def client(self, name: str) -> ClientData:
        """One client's data.

        Raises:
            DataError: there is no such client.
        """
        ...

    def records(self) -> tuple[Record, ...]:
        """All records of the clients. The same records in any order give the same source."""
        ...

    def draw(self, block: TaskBlock, k_support: int, k_query: int, *, key: bytes) -> Draw:
        """Support and query for one round; see `drawing.draw` and `drawing.draw_evenly`."""
        ...


class SourceClass(Protocol):
    """A class that makes task sources; what the registry and the entry points name.

    `records` stands in for the source's own records: the contract suite permutes, replaces and
    removes them.
    """

    Options: type[SourceOptions]

    def __call__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> TaskSource:
        """The source with these options, read at this site.

        Raises:
            DataError: the data break what the source declares.
        """
        ...
