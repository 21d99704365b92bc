"""The intent of a round: what the aggregator logs before a sum is opened, and how parties check it.

Evidence is the log entry, the signed checkpoint that covers it, and the leaf hashes of the whole
log: 32 bytes per entry, of which there are about two per round. From them a party computes the
root that was signed, and the root of the checkpoint that it saw last, however long ago that was:
inclusion and consistency (RFC 9162, section 2.1) for every party in one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from audit.canonical import decimal, dumps, loads
from audit.entry import RoundIntent, decode_entry
from audit.errors import AuditError
from audit.merkle import leaf_hash, root_of
from audit.note import Verifier
from crypto.codec import Reader, Writer
from crypto.errors import Malformed
from crypto.secure_sum import IntentCheck, Terms
from secure_fedmeta.setting import Setting

HASH_BYTES = 32


def facts(
    setting: Setting, *, round_index: int, attempt: int, survivors: int, clip: float
) -> dict[str, Any]:
    """What an intent says that every party can tell by itself, from setting and handout."""
    return {
        "round": round_index,
        "attempt": attempt,
        "config_digest": setting.config_digest.hex(),
        "plan_digest": setting.plan.digest().hex(),
        "secure_sum": {
            "protocol": setting.protocol.name,
            "parameters": {
                "ring_bits": setting.ring.bits,
                "values": setting.plan.dimension,
                "degree": setting.sharing.degree,
                "min_survivors": setting.plan.min_survivors,
                "max_colluders": setting.plan.max_colluders,
                "committee": setting.committee.members,
                "committee_threshold": setting.committee.threshold,
            },
            "capabilities": setting.protocol.capabilities().to_json(),
            "threshold": setting.sharing.threshold,
        },
        "clip": decimal(clip),
        "event": setting.plan.event(survivors).to_json(),
    }


@dataclass(frozen=True)
class Evidence:
    """Shows that an entry stands in the log.

    Attributes:
        entry: its bytes as stored.
        checkpoint: a signed head that covers it.
        leaves: the leaf hashes of all entries that the head covers, 32 bytes each.
    """

    entry: bytes
    checkpoint: bytes
    leaves: Sequence[bytes]

    def encode(self) -> bytes:
        """Entry and checkpoint behind their lengths, then the leaf hashes behind their number."""
        writer = Writer().sized(self.entry).sized(self.checkpoint).u32(len(self.leaves))
        return writer.fixed(b"".join(self.leaves), HASH_BYTES * len(self.leaves)).done()

    @classmethod
    def decode(cls, data: bytes) -> Evidence:
        """Inverse of encode.

        Raises:
            Malformed: not exactly one evidence.
        """
        reader = Reader(data)
        entry, checkpoint, count = reader.sized(), reader.sized(), reader.u32()
        joined = reader.fixed(HASH_BYTES * count)
        reader.end()
        leaves = [joined[k : k + HASH_BYTES] for k in range(0, len(joined), HASH_BYTES)]
        return cls(entry, checkpoint, leaves)


class LogWatch:
    """What one party knows of the run's log: its key, and the last checkpoint that it was shown.

    Attributes:
        seen: that checkpoint as it was signed; None before the first.
    """

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._key = Verifier.from_vkey(setting.log_key)
        self.seen: bytes | None = None

    def check(self, terms: Terms, clip: float) -> IntentCheck:
        """The check of one attempt, for this party's machine; see IntentCheck.

        The evidence must show, in a log that this party's key signed and that contains all it was
        shown before, the intent to open just this attempt's sum of so many vectors, under this
        party's own setting, at the clip bound that it was handed, and at the privacy cost that its
        own plan gives.
        """

        def check(evidence: bytes, survivors: int) -> bytes:
            shown = Evidence.decode(evidence)
            try:
                self._check_log(shown)
                digest = self._check_entry(shown, terms, survivors, clip)
            except AuditError as error:
                raise Malformed(f"intent: {error}") from None
            self.seen = shown.checkpoint
            return digest

        return check

    def _check_log(self, shown: Evidence) -> None:
        head = self._key.open(shown.checkpoint)
        if (head.size, head.root) != (len(shown.leaves), root_of(shown.leaves)):
            raise Malformed("intent: the leaves do not hash to the root of the checkpoint")
        if self.seen is None:
            return
        before = self._key.open(self.seen)
        if head.size < before.size:
            raise Malformed(
                f"intent: a log of {head.size} entries; this party was shown {before.size}"
            )
        if root_of(shown.leaves[: before.size]) != before.root:
            raise Malformed("intent: the log does not extend the one that this party was shown")

    def _check_entry(self, shown: Evidence, terms: Terms, survivors: int, clip: float) -> bytes:
        entry = decode_entry(shown.entry)
        if entry.index >= len(shown.leaves) or leaf_hash(entry.raw) != shown.leaves[entry.index]:
            raise Malformed("intent: the entry does not stand in the log")
        if not isinstance(entry.body, RoundIntent):
            raise Malformed(f"intent: the entry is a {entry.kind}")
        if entry.run != terms.run.hex():
            raise Malformed("intent: the entry is of another run")
        expected = facts(
            self._setting,
            round_index=terms.round,
            attempt=terms.attempt,
            survivors=survivors,
            clip=clip,
        )
        stated = loads(entry.raw)["body"]
        for name, value in expected.items():
            if dumps(stated[name]) != dumps(value):
                raise Malformed(f"intent: {name} is another one than this party's own")
        if entry.body.counts.reported != survivors:
            raise Malformed(
                f"intent: to open a sum of {entry.body.counts.reported} vectors, not {survivors}"
            )
        return entry.digest
