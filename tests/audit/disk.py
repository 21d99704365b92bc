"""A disk in memory that can be cut off at any call; what was unsynced is kept, lost or torn."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from audit.errors import LogCorrupt

Fate = Literal["persisted", "lost", "torn"]
FATES: tuple[Fate, ...] = ("persisted", "lost", "torn")


class PowerCut(BaseException):
    """The machine stopped; nothing in the process may go on."""


@dataclass
class Inode:
    durable: bytes = b""
    content: bytes = b""


@dataclass
class SimulatedDisk:
    """The calls of `Disk`, over files whose content and names are durable only once synced.

    `cut_at` stops the machine during call number n (from 1), after the call changed what is in
    memory and before it made anything durable. `fail_at` has call n raise ENOSPC after half of
    what it had to write. `heads` collects every head that was ever handed to the disk, lost or not.
    """

    names: dict[str, Inode] = field(default_factory=dict)
    durable_names: dict[str, Inode] = field(default_factory=dict)
    cut_at: int | None = None
    fail_at: int | None = None
    error: int = errno.ENOSPC
    calls: int = 0
    heads: list[bytes] = field(default_factory=list)

    def read(self, name: str) -> bytes | None:
        inode = self.names.get(name)
        return None if inode is None else inode.content

    def append(self, name: str, at: int, data: bytes) -> None:
        inode = self.names.setdefault(name, Inode())
        if len(inode.content) != at:
            raise LogCorrupt(f"{name} has {len(inode.content)} bytes, not {at}")
        self._write(inode, inode.content, data)

    def write(self, name: str, data: bytes) -> None:
        if name.startswith("checkpoint"):
            self.heads.append(data)
        self._write(self.names.setdefault(name, Inode()), b"", data)

    def sync(self, name: str) -> None:
        self._step()
        self.names[name].durable = self.names[name].content

    def rename(self, old: str, new: str) -> None:
        self._fail()
        self.names[new] = self.names.pop(old)
        self._step()

    def sync_directory(self) -> None:
        self._step()
        self.durable_names = dict(self.names)

    def close(self) -> None:
        pass

    def restart(self, content: Fate, names: Fate) -> SimulatedDisk:
        """What the next process finds."""
        kept = self.durable_names if names == "lost" else self.names
        fresh: dict[int, Inode] = {}
        for inode in kept.values():
            left = {
                "persisted": inode.content,
                "lost": inode.durable,
                "torn": _torn(inode.durable, inode.content),
            }[content]
            fresh[id(inode)] = Inode(left, left)
        after = {name: fresh[id(inode)] for name, inode in kept.items()}
        return SimulatedDisk(names=after, durable_names=dict(after), heads=list(self.heads))

    def export(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        for name, inode in self.names.items():
            (directory / name).write_bytes(inode.content)

    def _write(self, inode: Inode, before: bytes, data: bytes) -> None:
        if self.calls + 1 == self.fail_at:
            inode.content = before + data[: len(data) // 2]
        self._fail()
        inode.content = before + data
        self._step()

    def _fail(self) -> None:
        if self.calls + 1 == self.fail_at:
            self.calls += 1
            raise OSError(self.error, "as the test wants")

    def _step(self) -> None:
        self._fail()
        self.calls += 1
        if self.calls == self.cut_at:
            raise PowerCut


def _torn(durable: bytes, content: bytes) -> bytes:
    if content.startswith(durable):
        return content[: len(durable) + (len(content) - len(durable)) // 2]
    return content[: len(content) // 2]
