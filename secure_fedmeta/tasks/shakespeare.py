"""Shakespeare by role: 811 roles of 37 plays, and the character that comes next.

The speeches ship with the product (data/PROVENANCE.md). As in LEAF (Caldas et al. 2018, arXiv
1812.01097) a client is one role, named `play.role`, an example is 80 characters and its target is
the one that follows. Every `stride`-th character of a speech is a target. What stands before a
speech does not belong to it: there, and for the few characters outside the vocabulary, is number 0.

A role's number of characters, rounded to a hundred, is public. Roles with at least 1,000 can be
clients: `roles` of them, the first in the order of a keyed hash of their names, so that plays mix;
every fifth is held out.

Units: a speech falls into a block of its role by a keyed hash of the speech's number, with all its
examples, and B follows from the declared characters. Examples of one speech share most of their
text, so that whoever changes one letter changes several: the source does not promise record. What a
changed speech can change is its own block, a task. A role is a user, and all of a client.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from pydantic import Field, model_validator

from secure_fedmeta.tasks.blocked import BlockedSource
from secure_fedmeta.tasks.blocks import block_count, block_index, cut
from secure_fedmeta.tasks.drawing import keyed
from secure_fedmeta.tasks.protocol import Floats, Record, SourceInfo, SourceOptions
from secure_fedmeta.tasks.shipped import ShippedFile
from secure_fedmeta.tasks.site import Site
from secure_fedmeta.tasks.table import csv_sheet

FILE = ShippedFile(
    "shakespeare.csv.gz", "bb6c23c2ff958e68d6af08ab3a3903ca9a90f6e4adbc911d40126999e57b61ce"
)
LENGTH = 80
VOCABULARY = "\n !\"'(),-.:;?" + string.ascii_uppercase + string.ascii_lowercase
CHARACTERS = 1 + len(VOCABULARY)
LEAST_CHARACTERS = 1000
SHORT_ROLES = "roles with fewer than 1,000 characters, rounded to a hundred"
OTHER_ROLES = "roles that were not asked for"
_NUMBERS = {ord(character): number for number, character in enumerate(VOCABULARY, start=1)}
# Public: the texts are.
_KEY = b"secure-fedmeta/shakespeare/1"


class ShakespeareOptions(SourceOptions):
    """Options of the Shakespeare source.

    Attributes:
        roles: clients, the held-out ones included.
        stride: characters from one example of a speech to the next.
        characters_per_block: mean characters of a block, more where `max_tasks` binds.
        max_tasks: most blocks of one role.
        k_support: support examples for one draw.
        k_query: query examples for one draw.
    """

    roles: int = Field(default=40, ge=5, le=618)
    stride: int = Field(default=20, ge=1, le=LENGTH)
    characters_per_block: int = Field(default=1500, ge=100, le=100_000)
    max_tasks: int = Field(default=8, ge=1, le=1000)
    k_support: int = Field(default=10, ge=1)
    k_query: int = Field(default=10, ge=1)

    @model_validator(mode="after")
    def _every_role_has_a_task(self) -> Self:
        """Then the largest of a role's blocks holds enough examples, rounding included."""
        most = (min(self.characters_per_block, LEAST_CHARACTERS) - 100) // self.stride
        if self.k_support + self.k_query > most:
            raise ValueError(
                f"k_support {self.k_support} + k_query {self.k_query} exceed the {most} examples "
                f"that every role has in a block; lower them or stride, or raise "
                "characters_per_block"
            )
        return self


@cache
def speeches() -> Mapping[str, tuple[str, ...]]:
    """Role (`play.role`) -> its speeches; the shipped file is read and checked once.

    Raises:
        DataError: the shipped file was changed.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for _, cells in csv_sheet(FILE.text(), FILE.name).rows:
        found[f"{cells['Play']}.{cells['Role']}"].append(cells["Text"])
    return {role: tuple(texts) for role, texts in found.items()}


def declared_characters(role: str) -> int:
    """The role's number of characters, rounded to a hundred; public."""
    return round(sum(map(len, speeches()[role])), -2)


def chosen_roles(count: int) -> tuple[str, ...]:
    """The first `count` roles with enough characters, in the keyed order of their names."""
    enough = [role for role in speeches() if declared_characters(role) >= LEAST_CHARACTERS]
    order = sorted(enough, key=lambda role: keyed(_KEY, "secure-fedmeta/shakespeare/roles", role))
    return tuple(order[:count])


def encode(text: str) -> Floats:
    """Characters as numbers from 1, 0 outside the vocabulary: `[length] float32`."""
    return np.array([_NUMBERS.get(ord(character), 0) for character in text], dtype=np.float32)


def examples(text: str, stride: int) -> tuple[Floats, Floats]:
    """Every `stride`-th character of a speech from the first on, and the 80 before it.

    Returns:
        inputs `[n, 80]` and targets `[n]`, float32.
    """
    codes = encode(text)
    padded = np.concatenate([np.zeros(LENGTH, dtype=np.float32), codes])
    windows: Floats = sliding_window_view(padded[:-1], LENGTH)[::stride]
    return windows, codes[::stride]


class ShakespeareSource(BlockedSource):
    """Roles and their next characters.

    Args:
        options: how many roles, and how their speeches become tasks.
        site: not needed: the texts ship.
        records: stand in for the shipped ones (`SourceClass`).

    Raises:
        DataError: the shipped file was changed, or given records lack a client, or leave one
            without a task.
    """

    Options: ClassVar[type[SourceOptions]] = ShakespeareOptions
    name = "shakespeare"

    def __init__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> None:
        del site  # shipped
        chosen = ShakespeareOptions.model_validate(options.model_dump())
        roles = chosen_roles(chosen.roles)
        counts = {
            role: min(
                chosen.max_tasks,
                block_count(declared_characters(role), chosen.characters_per_block),
            )
            for role in roles
        }
        held = tuple(_records(roles, chosen.stride) if records is None else records)
        blocks = cut(
            held,
            names=roles,
            block_of=lambda record: block_of(record.id, counts[record.client]),
            min_records=chosen.k_support + chosen.k_query,
        )
        info = SourceInfo(
            rows=len(held),
            clients=len(roles),
            tasks=sum(len(client.blocks) for client in blocks.clients.values()),
            task_bounds=counts,
            units=frozenset({"task", "user", "client"}),
            licence="public domain, in a collection under CC BY 2.5",
            provenance=(
                "plays of Shakespeare, Project Gutenberg's texts by way of Open Shakespeare, from "
                "shakespeare 0.6"
            ),
            public=True,
            features=tuple(f"character {place - LENGTH}" for place in range(LENGTH)),
            input_bounds=(0.0, float(CHARACTERS - 1)),
            output_dim=CHARACTERS,
            loss="cross_entropy",
            metric="accuracy",
            k_support=chosen.k_support,
            k_query=chosen.k_query,
            files={FILE.name: FILE.sha256},
            held_out=tuple(sorted(roles[4::5])),
            excluded={**_left_out(roles), **blocks.excluded},
            missing=_unknown(roles),
        )
        super().__init__(info, blocks.clients, held)


def block_of(record_id: str, blocks: int) -> str:
    """The block of an example `role/speech/character`: that of its speech."""
    speech = record_id.rpartition("/")[0]
    role = speech.rpartition("/")[0]
    return f"{role}/{block_index(_KEY, speech, blocks):03d}"


def _records(roles: Sequence[str], stride: int) -> Iterator[Record]:
    for role in roles:
        for number, text in enumerate(speeches()[role]):
            inputs, targets = examples(text, stride)
            for place, (x, y) in enumerate(zip(inputs, targets.tolist(), strict=True)):
                name = f"{role}/{number:04d}/{place * stride:05d}"
                yield Record(name, role, role, x, float(y))


def _left_out(roles: Sequence[str]) -> dict[str, int]:
    short = sum(declared_characters(role) < LEAST_CHARACTERS for role in speeches())
    other = len(speeches()) - short - len(roles)
    return {SHORT_ROLES: short} | ({OTHER_ROLES: other} if other else {})


def _unknown(roles: Sequence[str]) -> dict[str, int]:
    """Characters of the roles that are outside the vocabulary, counted under the text's column."""
    texts = (text for role in roles for text in speeches()[role])
    unknown = sum(int((encode(text) == 0).sum()) for text in texts)
    return {"Text": unknown} if unknown else {}
