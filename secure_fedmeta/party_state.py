"""What a party keeps between two messages, as bytes for its vault.

Format (little-endian, crypto.codec): version u8 = 1 | run 32 bytes | index u32 | round u32 |
attempt u32 | contributions u32 | then behind their lengths: last checkpoint seen, digest of the
message answered last, the answer, digest of model and clip bound, the clip bound (float64), the
model, state of the secure sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from crypto.codec import Reader, Writer
from crypto.errors import Malformed, StateRefused
from crypto.saved_state import check_version
from crypto.terms import DIGEST_BYTES

VERSION: Final = 1


@dataclass(frozen=True, repr=False)
class PartyState:
    """Everything of a party that a restart must not lose; secrets stand in it in clear.

    Attributes:
        last: round and attempt that it answered last; (0, 0) before the first.
        contributions: how many vectors it has computed in this run.
        seen: the last checkpoint of the log that it was shown; empty before the first.
        asked: SHA-256 of the message that it answered last; empty if there is no answer.
        reply: that answer.
        model_digest: of the open attempt's model and clip bound; empty if no attempt is open.
        clip: that clip bound, 8 bytes; empty if no attempt is open.
        model: that model as on the wire, until the vector is computed; then empty.
        machine: the open attempt's secure sum; empty if no attempt is open.
    """

    last: tuple[int, int]
    contributions: int
    seen: bytes
    asked: bytes
    reply: bytes
    model_digest: bytes
    clip: bytes
    model: bytes
    machine: bytes

    def encode(self, run: bytes, index: int) -> bytes:
        """The state of this party of this run."""
        writer = Writer().u8(VERSION).fixed(run, DIGEST_BYTES).u32(index)
        writer.u32(self.last[0]).u32(self.last[1]).u32(self.contributions)
        for part in (self.seen, self.asked, self.reply, self.model_digest, self.clip):
            writer.sized(part)
        return writer.sized(self.model).sized(self.machine).done()

    @classmethod
    def decode(cls, data: bytes, run: bytes, index: int) -> PartyState:
        """Inverse of encode.

        Raises:
            StateRefused: another version, run or party, or not exactly one state.
        """
        try:
            reader = Reader(data)
            check_version("party state", reader.u8(), VERSION)
            if (reader.fixed(DIGEST_BYTES), reader.u32()) != (run, index):
                raise StateRefused(
                    "party state of another run or party: give every party of every run a vault"
                    " of its own"
                )
            last = (reader.u32(), reader.u32())
            contributions = reader.u32()
            parts = [reader.sized() for _ in range(7)]
            reader.end()
        except Malformed as error:
            raise StateRefused(
                f"party state is damaged ({error}): put the party's own back, or leave the run"
            ) from None
        return cls(last, contributions, *parts)
