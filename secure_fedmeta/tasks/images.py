"""Images of one's own, in a folder laid out client/class/file: N-way K-shot episodes.

A class of a client is in the block that a keyed hash of client and class says. A task is a block
with `ways` classes that hold enough images; of more, the first by another keyed hash are taken. Its
labels 0 to N - 1 are given to the classes in that order, so that a label means something in its
task alone, and held-out clients are scored task by task. Support and query take as many images of
each class.

What block an image is in follows from its class, so that an image that were another class's would
be in another task: the source promises task and client, not record. That a class loses or gains
images changes its own task only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal, Self
from urllib.parse import quote

from pydantic import Field, model_validator

from secure_fedmeta.config_base import Count, Name
from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.blocked import BlockedSource
from secure_fedmeta.tasks.blocks import block_count, block_index, cut
from secure_fedmeta.tasks.drawing import keyed
from secure_fedmeta.tasks.own_table_options import Column
from secure_fedmeta.tasks.protocol import Record, SourceInfo, SourceOptions
from secure_fedmeta.tasks.schema import Schema
from secure_fedmeta.tasks.site import Site

SURPLUS = "images of more classes than a task has"
NO_RECORD = (
    "a task is made of classes, so that an image of another class would be in another task; set "
    "privacy.unit to task or client"
)
NO_USER = "folders say who holds an image, not of whom it is; set privacy.unit to task or client"
MAX_VALUES: Final = 2**28
"""Numbers of all images together, 1 GiB."""
_PUBLIC_KEY = b"secure-fedmeta/images/1"


class ImageOptions(SourceOptions):
    """Options of the source `images`.

    Attributes:
        path: the folder; relative paths start at the config's own.
        classes: client -> declared number of its classes; names all clients.
        classes_per_block: mean number of classes of a block.
        ways: classes of one task (N).
        shots: support images of each class for one draw (K).
        queries: query images of each class for one draw.
        side: height and width that images are made to have.
        colour: one channel or three.
        public: whether everybody may see the data.
        licence: the data's licence.
    """

    path: Column
    classes: dict[Name, Count] = Field(min_length=1)
    classes_per_block: int = Field(default=8, ge=2, le=1000)
    ways: int = Field(default=5, ge=2, le=100)
    shots: int = Field(default=1, ge=1, le=100)
    queries: int = Field(default=1, ge=1, le=100)
    side: int = Field(default=28, ge=4, le=128)
    colour: Literal["grey", "rgb"] = "grey"
    public: bool = False
    licence: str = "not stated"

    @model_validator(mode="after")
    def _enough_classes(self) -> Self:
        if self.ways > self.classes_per_block:
            raise ValueError(f"ways {self.ways} exceed classes_per_block {self.classes_per_block}")
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """The name of each input."""
        channels = ("grey",) if self.colour == "grey" else ("red", "green", "blue")
        places = range(self.side)
        return tuple(f"{c} {row},{column}" for c in channels for row in places for column in places)


@dataclass(frozen=True)
class _Cutting:
    """Which block a class is in, and which classes of a block make its task."""

    key: bytes
    counts: Mapping[str, int]
    ways: int
    images: int

    def block(self, record_id: str) -> str:
        """The block of the image `client/class/file`."""
        client, label, _ = record_id.split("/")
        number = block_index(self.key, f"{client}/{label}", self.counts.get(client, 1))
        return f"{client}/{number}"

    def labels(self, ids: Iterable[str]) -> dict[str, int]:
        """Image -> the label of its class, for the classes that are taken of each block."""
        held: dict[str, list[str]] = defaultdict(list)
        for record_id in ids:
            held[record_id.rpartition("/")[0]].append(record_id)
        blocks: dict[str, list[str]] = defaultdict(list)
        for found in held:
            blocks[self.block(f"{found}/")].append(found)
        labels: dict[str, int] = {}
        for classes in blocks.values():
            turn = {c: keyed(self.key, "secure-fedmeta/images", c) for c in classes}
            classes.sort(key=lambda c: (len(held[c]) < self.images, turn[c]))
            for label, taken in enumerate(sorted(classes[: self.ways], key=lambda c: turn[c])):
                labels |= dict.fromkeys(held[taken], label)
        return labels

    def complete(self, records: Sequence[Record]) -> bool:
        """Whether these images of one block make a task."""
        sizes = Counter(record.id.rpartition("/")[0] for record in records)
        return len(sizes) == self.ways and min(sizes.values()) >= self.images


class ImageSource(BlockedSource):
    """Clients with images, cut into N-way K-shot episodes.

    Args:
        options: the folder and the episodes.
        site: where the folder lies, and the secret that keys its blocks.
        records: stand in for the folder's (`SourceClass`), with ids `client/class/file`.

    Raises:
        DataError: the folder cannot be read, holds what it should not, or leaves a client without
            a task.
    """

    Options: ClassVar[type[SourceOptions]] = ImageOptions
    name = "images"

    def __init__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> None:
        chosen = ImageOptions.model_validate(options.model_dump())
        counts = {c: block_count(n, chosen.classes_per_block) for c, n in chosen.classes.items()}
        key = _PUBLIC_KEY if chosen.public else site.block_secret()
        cutting = _Cutting(key, counts, chosen.ways, chosen.shots + chosen.queries)
        if records is None:
            held, left = _read(chosen, site.folder / chosen.path, cutting)
        else:
            given = tuple(records)
            labels = cutting.labels(record.id for record in given)
            held = tuple(record for record in given if record.id in labels)
            left = len(given) - len(held)
        schema, k_query = self.schema(chosen), chosen.ways * chosen.queries
        blocks = cut(
            held,
            names=counts,
            block_of=lambda record: cutting.block(record.id),
            min_records=schema.k_support + k_query,
            complete=cutting.complete,
        )
        info = SourceInfo(
            rows=len(held),
            clients=len(blocks.clients),
            tasks=sum(len(client.blocks) for client in blocks.clients.values()),
            task_bounds=counts,
            units=frozenset({"task", "client"}),
            licence=chosen.licence,
            provenance=f"{Path(chosen.path).name}, a folder of the user's own",
            public=chosen.public,
            features=schema.features,
            input_bounds=schema.input_bounds,
            output_dim=schema.output_dim,
            loss=schema.loss,
            metric=schema.metric,
            k_support=schema.k_support,
            k_query=k_query,
            balanced=True,
            lacking={"record": NO_RECORD, "user": NO_USER},
            excluded={**({SURPLUS: left} if left else {}), **blocks.excluded},
        )
        super().__init__(info, blocks.clients, held)

    @classmethod
    def schema(cls, options: SourceOptions) -> Schema:
        """What a model of such images reads and predicts; no image is read."""
        chosen = ImageOptions.model_validate(options.model_dump())
        return Schema(
            features=chosen.inputs,
            input_bounds=(-1.0, 1.0),
            output_dim=chosen.ways,
            loss="cross_entropy",
            metric="accuracy",
            k_support=chosen.ways * chosen.shots,
        )


def _read(options: ImageOptions, folder: Path, cutting: _Cutting) -> tuple[tuple[Record, ...], int]:
    """The images of the classes that are taken, and how many others there are."""
    from secure_fedmeta.tasks.image_files import list_images, read_images  # Pillow

    found = list_images(folder)
    for image in found:
        if image.client not in options.classes:
            known = ", ".join(options.classes)
            raise DataError(f"{folder.name}/{image.client}: no declared client; these are {known}")
    ids = {f"{i.client}/{quote(i.label, safe='')}/{quote(i.file, safe='')}": i for i in found}
    labels = cutting.labels(ids)
    if len(labels) * len(options.inputs) > MAX_VALUES:
        raise DataError(
            f"{folder.name}: {len(labels):,} images of {len(options.inputs):,} numbers are more "
            f"than {MAX_VALUES:,} in all; make data.options.side smaller"
        )
    pixels = read_images(folder, [ids[i] for i in labels], side=options.side, colour=options.colour)
    records = tuple(
        # Nobody is known behind an image; a label means something in its task alone, so that what
        # adapts as one is the task.
        Record(i, ids[i].client, cutting.block(i), x, float(labels[i]))
        for i, x in zip(labels, pixels, strict=True)
    )
    return records, len(found) - len(records)
