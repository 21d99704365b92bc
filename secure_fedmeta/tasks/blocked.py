"""What sources of keyed blocks share: records, clients cut into blocks, and declared facts."""

from __future__ import annotations

from collections.abc import Mapping

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks import drawing
from secure_fedmeta.tasks.protocol import ClientData, Draw, Record, SourceInfo, TaskBlock


class BlockedSource:
    """A task source whose records are cut into blocks once, when it is made.

    Args:
        info: what the source declares and counts.
        clients: name -> data, sorted by name.
        records: all records of the clients.
    """

    def __init__(
        self, info: SourceInfo, clients: Mapping[str, ClientData], records: tuple[Record, ...]
    ) -> None:
        self._info = info
        self._clients = clients
        self._records = records

    @property
    def info(self) -> SourceInfo:
        """What the source declares and counts."""
        return self._info

    def clients(self) -> tuple[str, ...]:
        """All clients, sorted; `info.held_out` names those that are for evaluation only."""
        return tuple(self._clients)

    def client(self, name: str) -> ClientData:
        """One client's data.

        Raises:
            DataError: there is no such client.
        """
        if name not in self._clients:
            raise DataError(f"no client {name!r}; clients are {', '.join(self._clients)}")
        return self._clients[name]

    def records(self) -> tuple[Record, ...]:
        """All records of the clients."""
        return self._records

    def draw(self, block: TaskBlock, k_support: int, k_query: int, *, key: bytes) -> Draw:
        """Support and query of one block; see `drawing.draw` and `drawing.draw_evenly`."""
        draw = drawing.draw_evenly if self._info.balanced else drawing.draw
        return draw(block, k_support, k_query, key=key)
