"""The writer of an audit log: append durably, sign every head, recover after a crash.

`log.jsonl` holds the entries, `checkpoint` the signed head, `leaves` the Merkle leaf hashes (32
bytes each). The last is no evidence by itself: it counts only where it hashes to the signed root,
and then it lets a verifier say exactly which entry was changed. `pending` holds the writer's
signature over what it is about to append. After a crash it tells an entry of the writer, which the
head does not cover yet, from one that somebody else put there: to make one takes no key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from audit import merkle
from audit.canonical import sha256
from audit.entry import Entry, decode_entry, encode_entry
from audit.errors import AuditError, EntryRefused, LogCorrupt, NoteRefused, WriteFailed
from audit.files import make_directories
from audit.note import Checkpoint, LogSigner
from audit.replay import CHECKPOINT, LEAVES, LOG, PENDING, Replay, split_lines
from audit.rules import OpenIntent
from audit.store import Disk, OsDisk, Store

Clock = Callable[[], datetime]
_SEPARATOR = b"\0"
"""Between the notes of a recovery that was cut off and of the one after it: no note has it."""


@dataclass(frozen=True)
class Appended:
    """A durable entry: its index from 0, its bytes as stored, and the signed head covering it."""

    index: int
    raw: bytes
    head: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the stored bytes."""
        return sha256(self.raw)


class AuditLog:
    """One log, open for its only writer. Make it with `create` or `open`; close it when done.

    When `append` returns, the entry and a signed head that covers it survive a crash. When it
    raises `WriteFailed`, nothing is acknowledged and the log must be opened again.
    """

    def __init__(self, store: Store, signer: LogSigner, clock: Clock, replay: Replay) -> None:
        self._store = store
        self._signer = signer
        self._clock = clock
        self._replay = replay
        self._bytes = 0
        self._head = b""
        self._stopped = False

    @classmethod
    def create(
        cls, directory: Path, signer: LogSigner, *, clock: Clock, disk: Disk | None = None
    ) -> AuditLog:
        """Start an empty log in `directory` (made if missing); the first entry is a genesis.

        Args:
            directory: where log.jsonl and checkpoint go; signing keys never lie there.
            signer: the log's key; its origin names the log.
            clock: gives the wall clock as an aware datetime.
            disk: storage to use instead of the directory; it holds the lock already.

        Raises:
            AuditError: a log is there already.
            LogLocked: another writer has the directory open.
            WriteFailed: the system refused.
        """
        if disk is None:
            make_directories(directory)
        store = Store(disk if disk is not None else OsDisk(directory))
        try:
            if store.read(CHECKPOINT) is not None or store.read(LOG):
                raise AuditError(f"{directory} holds a log already; open it")
            log = cls(store, signer, clock, Replay(signer.origin))
            with log._durably():
                store.replace(PENDING, b"")
                store.replace(LOG, b"")
                log._sign_head()
        except BaseException:
            store.close()
            raise
        return log

    @classmethod
    def open(
        cls,
        directory: Path,
        signer: LogSigner,
        *,
        clock: Clock,
        pinned: bytes | None = None,
        disk: Disk | None = None,
    ) -> AuditLog:
        """Go on with a log, after checking all of it against its signed head.

        A writer that was cut off leaves at most one entry beyond the head. A whole one for which
        `pending` vouches is kept and covered by a new head; a torn one, which was never
        acknowledged, is dropped. Either is recorded as `recovered`, in the same durable step (a
        torn genesis leaves no log to record it in).

        Args:
            directory: where the log lies.
            signer: the log's key.
            clock: gives the wall clock as an aware datetime.
            pinned: a head kept elsewhere (PinStore); without it, a log and head set back together
                to an earlier state cannot be told from the latest.
            disk: storage to use instead of the directory; it holds the lock already.

        Raises:
            AuditError: there is no log.
            LogCorrupt: the log contradicts its head or the pinned one, or more lies beyond the
                head than a crash of this writer can leave.
            LogLocked: another writer has the directory open.
            WriteFailed: the system refused while recovering.
        """
        if disk is None and not directory.is_dir():
            raise AuditError(f"{directory} holds no log")
        store = Store(disk if disk is not None else OsDisk(directory))
        try:
            log = cls(store, signer, clock, Replay(signer.origin))
            log._load(pinned)
        except BaseException:
            store.close()
            raise
        return log

    def append(self, kind: str, body: Mapping[str, Any]) -> Appended:
        """Write one entry and a signed head that covers it; both are durable on return.

        Raises:
            EntryRefused: malformed or out of order; nothing was written and the log goes on.
            WriteFailed: the system refused; whether the entry survives is open until the log is
                opened again.
            LogCorrupt: the stored log is not as this writer left it.
        """
        if self._stopped:
            raise WriteFailed("this writer is closed or has failed before; open the log again")
        raw = self._encode(kind, body)
        with self._durably():
            covered = self.size
            entry = self._replay.take(raw)
            self._store.overwrite(PENDING, self._signer.vouch(covered, raw + b"\n"))
            self._store.append(LOG, self._bytes, raw + b"\n")
            self._bytes += len(raw) + 1
            self._store.append_lazily(LEAVES, 32 * entry.index, self._replay.leaves[-1])
            self._sign_head()
        return Appended(entry.index, raw, self._head)

    @property
    def head(self) -> bytes:
        """The latest signed head, to pin or to hand out: a C2SP checkpoint."""
        return self._head

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._replay.size

    @property
    def root(self) -> bytes:
        """RFC 6962 root over all entries, 32 bytes."""
        return self._replay.root

    @property
    def leaves(self) -> tuple[bytes, ...]:
        """RFC 6962 leaf hashes of all entries, 32 bytes each: enough to check any proof."""
        return tuple(self._replay.leaves)

    @property
    def open_intent(self) -> OpenIntent | None:
        """The round whose outcome is not recorded: to be released or aborted before the next."""
        return self._replay.order.open_intent

    def prove_inclusion(self, index: int) -> list[bytes]:
        """Audit path of entry `index` under the latest head."""
        return merkle.inclusion_proof(self._replay.leaves, index)

    def prove_consistency(self, old_size: int) -> list[bytes]:
        """Proof that the latest head extends the one of `old_size` entries."""
        return merkle.consistency_proof(self._replay.leaves, old_size)

    def close(self) -> None:
        """Give up the lock. Nothing is pending: every append was durable."""
        self._stopped = True
        self._store.close()

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _encode(self, kind: str, body: Mapping[str, Any]) -> bytes:
        genesis = self._replay.order.genesis
        if genesis is None and kind != "genesis":
            raise EntryRefused(f"the first entry is a genesis, not {kind}")
        run = body.get("run", "") if genesis is None else genesis.run
        return encode_entry(
            kind, body, index=self.size, prev=self._replay.tip, run=run, time=self._clock()
        )

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """A step that is durable in full, or after which this writer writes no more.

        Only a refused entry, which changes nothing, lets it go on.
        """
        self._stopped = True
        try:
            yield
        except EntryRefused:
            self._stopped = False
            raise
        except OSError as error:
            raise WriteFailed(
                f"the log is not durable: {error}: make room on its disk, or mend it; what was "
                "acknowledged before is kept, and a run goes on with fedmeta run --resume RUN"
            ) from error
        self._stopped = False

    def _sign_head(self) -> None:
        """Sign what is durable. Heads of one writer only ever grow, so no two contradict."""
        head = self._signer.sign(Checkpoint(self._signer.origin, self.size, self.root))
        self._store.replace(CHECKPOINT, head)
        self._head = head

    def _load(self, pinned: bytes | None) -> None:
        stored, note = self._store.read(LOG), self._store.read(CHECKPOINT)
        if note is None:
            raise (LogCorrupt("entries without a head") if stored else AuditError("no log here"))
        head = self._open_note(note)
        lines, torn = split_lines(stored or b"")
        if len(lines) < head.size:
            raise LogCorrupt(f"{len(lines)} entries where the head covers {head.size}")
        anchor = None if pinned is None else self._open_note(pinned)
        if anchor is not None and anchor.size > head.size:
            raise LogCorrupt(f"the head covers {head.size} entries, the pinned one {anchor.size}")
        for raw in lines[: head.size]:
            self._take_stored(raw)
            if anchor is not None and anchor.size == self.size and anchor.root != self.root:
                raise LogCorrupt(f"the first {self.size} entries are not those of the pinned head")
        if self.root != head.root:
            raise LogCorrupt("the entries do not hash to the root of the head")
        self._head = note
        self._bytes = sum(len(raw) + 1 for raw in lines[: head.size])
        if self._store.read(PENDING) is None:
            with self._durably():
                self._store.replace(PENDING, b"")
        self._recover(lines[head.size :], torn)
        leaves = b"".join(self._replay.leaves)
        if self._store.read(LEAVES) != leaves:
            with self._durably():
                self._store.replace(LEAVES, leaves)

    def _open_note(self, note: bytes) -> Checkpoint:
        try:
            return self._signer.verifier.open(note)
        except NoteRefused as error:
            raise LogCorrupt(f"head: {error}") from None

    def _take_stored(self, raw: bytes) -> Entry:
        try:
            return self._replay.take(raw)
        except EntryRefused as error:
            raise LogCorrupt(f"entry {self.size}: {error}") from None

    def _voucher(self, tail: bytes) -> bytes:
        """The note that vouches for what lies beyond the head; empty where nothing does.

        Raises:
            LogCorrupt: there is none.
        """
        if not tail:
            return b""
        covered = self._open_note(self._head).size
        for note in (self._store.read(PENDING) or b"").split(_SEPARATOR):
            if self._signer.verifier.vouched(note, covered, tail):
                return note
        raise LogCorrupt("what lies beyond the head was put there by somebody else than its writer")

    def _recover(self, beyond: list[bytes], torn: bytes) -> None:
        """Keep whole entries beyond the head, drop a torn tail, record both."""
        if beyond and not _is_whole(beyond[-1]):
            torn = b"\n".join([beyond.pop(), torn])
        if not beyond and not torn:
            return
        covered = self.size
        adopted = [self._take_stored(raw) for raw in beyond]
        if any(entry.kind != "recovered" for entry in adopted[1:]):
            raise LogCorrupt(f"{len(adopted)} entries beyond the head: it was set back")
        kept = b"".join(raw + b"\n" for raw in beyond)
        voucher = self._voucher(kept)
        if self._replay.order.genesis is not None:
            record = self._replay.take(
                self._encode(
                    "recovered",
                    {
                        "covered": covered,
                        "adopted": [entry.digest.hex() for entry in adopted],
                        "dropped_bytes": len(torn),
                        "dropped_digest": sha256(torn).hex() if torn else None,
                    },
                )
            )
            kept += record.raw + b"\n"
        signed = (self._store.read(LOG) or b"")[: self._bytes]
        with self._durably():
            vouchers = (voucher, self._signer.vouch(covered, kept))
            self._store.replace(PENDING, _SEPARATOR.join(filter(None, vouchers)))
            self._store.replace(LOG, signed + kept)
            self._bytes += len(kept)
            self._sign_head()


def _is_whole(raw: bytes) -> bool:
    """Whether a line can have been written by a log, rather than torn on its way to the disk."""
    try:
        decode_entry(raw)
    except EntryRefused:
        return False
    return True
