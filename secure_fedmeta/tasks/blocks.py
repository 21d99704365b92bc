"""From records to blocks: a keyed hash of the record id, and nothing else, says which block.

block = HMAC-SHA256(key, record id) mod B with B public. Neither label nor features nor the number
of records enter, so that removing a record changes its own block only, replacing it under the same
id likewise, and adding one changes the block that its id falls into. A record that is replaced by
one with another id changes two blocks.

The price is uneven blocks: with B = records / m their sizes are close to Poisson with mean m. At
m = 14 and 10 records for one task 11 % of the blocks, holding 6 % of the records, are too small.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.drawing import keyed
from secure_fedmeta.tasks.protocol import ClientData, Record, TaskBlock

SMALL_BLOCKS = "blocks with too few records for one task"
SMALL_BLOCK_ROWS = "records in blocks with too few for one task"


def block_count(declared_records: int, records_per_block: int) -> int:
    """B, from a declared number of records, never from a counted one; at least 1."""
    return max(1, declared_records // records_per_block)


def block_index(key: bytes, record_id: str, blocks: int) -> int:
    """The block of a record, 0 to blocks - 1; uniform up to 2^-200 for a random key."""
    return int.from_bytes(keyed(key, "secure-fedmeta/block", record_id), "big") % blocks


def hashed_blocks(key: bytes, counts: Mapping[str, int]) -> Callable[[Record], str]:
    """The rule that names a record's block, `client/number`, by the keyed hash.

    Args:
        key: the source's block key.
        counts: client -> B.
    """
    width = len(str(max(counts.values()) - 1))

    def block_of(record: Record) -> str:
        index = block_index(key, record.id, counts[record.client])
        return f"{record.client}/{index:0{width}d}"

    return block_of


def user_block(record: Record) -> str:
    """The block of a record whose user has one block: the user's name, unique in the source.

    Raises:
        DataError: the record names no user.
    """
    if record.user is None:
        raise DataError(f"record {record.id!r} names no user; every record belongs to a person")
    return record.user


@dataclass(frozen=True)
class Blocking:
    """How records are cut into blocks.

    Attributes:
        counts: client -> public bound on its blocks; names every client.
        block_of: names a record's block; looks at its client, user and id only.
        units: the units of privacy that such blocks can carry.
    """

    counts: Mapping[str, int]
    block_of: Callable[[Record], str]
    units: frozenset[str]


def by_hash(key: bytes, declared: Mapping[str, int], records_per_block: int) -> Blocking:
    """Blocks by the keyed hash of the record id, for records of as many people.

    Args:
        key: the source's block key.
        declared: client -> its number of records, declared and public.
        records_per_block: mean size of a block.
    """
    counts = {
        client: block_count(records, records_per_block) for client, records in declared.items()
    }
    return Blocking(counts, hashed_blocks(key, counts), frozenset({"record", "task", "client"}))


def by_user(declared: Mapping[str, int]) -> Blocking:
    """One block for each person, so that a task is all that there is of a user.

    Args:
        declared: client -> public bound on the number of its users.
    """
    return Blocking(declared, user_block, frozenset({"record", "task", "user", "client"}))


@dataclass(frozen=True)
class Blocks:
    """Clients cut into blocks.

    Attributes:
        clients: name -> data, sorted by name.
        excluded: what was too small for a task: number of blocks, number of records.
    """

    clients: Mapping[str, ClientData]
    excluded: Mapping[str, int]


def cut(
    records: Iterable[Record],
    *,
    names: Iterable[str],
    block_of: Callable[[Record], str],
    min_records: int,
    complete: Callable[[Sequence[Record]], bool] = lambda records: True,
) -> Blocks:
    """Cut each client's records into blocks; those below `min_records` are left out and counted.

    The result does not depend on the order of the records: inside a block they are sorted by a hash
    of their id.

    Args:
        records: all records.
        names: every client that must be there.
        block_of: names a record's block; must look at its client, user and id only.
        min_records: records that one task needs.
        complete: whether the records of a block, enough by number, make a task; looks at their
            clients, users and ids only.

    Raises:
        DataError: a record id comes twice, a record belongs to no client of `names`, a client has
            no record, or none of its blocks is large enough.
    """
    grouped: dict[str, dict[str, list[Record]]] = {name: defaultdict(list) for name in names}
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise DataError(f"record {record.id!r} comes twice; record ids must be unique")
        if record.client not in grouped:
            raise DataError(f"record {record.id!r} belongs to undeclared client {record.client!r}")
        seen.add(record.id)
        grouped[record.client][block_of(record)].append(record)
    excluded: Counter[str] = Counter()
    clients = {
        name: _client(name, blocks, min_records, complete, excluded)
        for name, blocks in sorted(grouped.items())
    }
    return Blocks(clients, dict(excluded))


def _client(
    name: str,
    blocks: Mapping[str, list[Record]],
    min_records: int,
    complete: Callable[[Sequence[Record]], bool],
    excluded: Counter[str],
) -> ClientData:
    if not blocks:
        raise DataError(f"client {name!r} has no record")
    cut_blocks = [_block(block_id, blocks[block_id]) for block_id in sorted(blocks)]
    large = tuple(
        block for block in cut_blocks if len(block) >= min_records and complete(blocks[block.id])
    )
    if not large:
        raise DataError(
            f"client {name!r} has too few records for one task: its largest of {len(cut_blocks)} "
            f"blocks holds {max(len(block) for block in cut_blocks)}, a task needs {min_records}"
        )
    kept = {block.id for block in large}
    small = [block for block in cut_blocks if block.id not in kept]
    if small:
        excluded[SMALL_BLOCKS] += len(small)
        excluded[SMALL_BLOCK_ROWS] += sum(len(block) for block in small)
    x = np.concatenate([block.x for block in cut_blocks])
    y = np.concatenate([block.y for block in cut_blocks])
    return ClientData(name, large, x, y)


def _block(block_id: str, records: list[Record]) -> TaskBlock:
    ordered = sorted(records, key=lambda record: keyed(b"", "secure-fedmeta/order", record.id))
    users = {record.user for record in ordered}
    return TaskBlock(
        id=block_id,
        user=users.pop() if len(users) == 1 else None,
        x=np.stack([record.x for record in ordered]).astype(np.float32),
        y=np.array([record.y for record in ordered], dtype=np.float32),
    )
