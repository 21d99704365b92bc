"""Signed notes and checkpoints as C2SP specifies them (signed-note, tlog-checkpoint), Ed25519.

A checkpoint states origin, size and root of a log; the note's signature binds the three. Key
strings are those of Go's sumdb/note, so that other tools read them:

    vkey         <origin>+<key id, 8 hex>+<base64(0x01 || public key)>
    private key  PRIVATE+KEY+<origin>+<key id>+<base64(0x01 || seed)>

The verifying key always comes from the user, never from the log.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.canonical import sha256
from audit.errors import NoteRefused
from audit.files import write_new

_ED25519 = b"\x01"
_MAX_NOTE = 65_535
_MAX_SIGNATURES = 100
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_PRIVATE = "PRIVATE+KEY+"


@dataclass(frozen=True)
class Checkpoint:
    """The statement that a head signs: which log, how many entries, under which root."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The signed text: three lines."""
        return f"{self.origin}\n{self.size}\n{_b64(self.root)}\n"

    @classmethod
    def from_text(cls, text: str) -> Checkpoint:
        """Read the three lines; extension lines are refused, because this log writes none.

        Raises:
            NoteRefused: anything but what `text` writes.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] != "":
            raise NoteRefused("a checkpoint has three lines: origin, size, root")
        origin, size, root = lines[:3]
        if _NAME.fullmatch(origin) is None or _SIZE.fullmatch(size) is None:
            raise NoteRefused("malformed origin or size in checkpoint")
        return cls(origin, int(size), _unb64(root, 32))


class Verifier:
    """The public half of a log's key: checks that a checkpoint was signed by it."""

    def __init__(self, origin: str, public: bytes) -> None:
        self.origin = _check_name(origin)
        self.public = public
        self.key_id = _key_id(origin, public)
        self._key = Ed25519PublicKey.from_public_bytes(public)

    @classmethod
    def from_vkey(cls, vkey: str) -> Verifier:
        """Read a vkey string.

        Raises:
            NoteRefused: malformed, another algorithm, or the key id does not match.
        """
        origin, key = _split_key(vkey.strip())
        verifier = cls(origin[0], key)
        if origin[1] != verifier.key_id.hex():
            raise NoteRefused("key id does not match the key")
        return verifier

    @property
    def vkey(self) -> str:
        """The key as a string, to hand to whoever verifies."""
        return f"{self.origin}+{self.key_id.hex()}+{_b64(_ED25519 + self.public)}"

    def open(self, note: bytes) -> Checkpoint:
        """Check a checkpoint's signature by this key and return what it states.

        Raises:
            NoteRefused: malformed, of another origin, unsigned by this key, or wrongly signed.
        """
        checkpoint = Checkpoint.from_text(self.open_text(note))
        if checkpoint.origin != self.origin:
            raise NoteRefused(f"checkpoint of {checkpoint.origin!r}, key of {self.origin!r}")
        return checkpoint

    def vouched(self, note: bytes, covered: int, tail: bytes) -> bool:
        """Whether the note is what `LogSigner.vouch` gives for these bytes."""
        try:
            return self.open_text(note) == _voucher(self.origin, covered, tail)
        except NoteRefused:
            return False

    def open_text(self, note: bytes) -> str:
        """Check a note's signature by this key and return its text.

        The signature is found by name and key id. Signatures by other keys are ignored, as
        signed-note demands; every one that claims to be by this key must be right.

        Raises:
            NoteRefused: malformed, unsigned by this key, or wrongly signed.
        """
        text, signatures = _parse(note)
        mine = [
            blob[4:] for name, blob in signatures if name == self.origin and blob[:4] == self.key_id
        ]
        if not mine:
            raise NoteRefused(f"no signature by key {self.origin}+{self.key_id.hex()}")
        for signature in mine:
            try:
                self._key.verify(signature, text.encode())
            except InvalidSignature:
                raise NoteRefused("the signature does not match the checkpoint") from None
        return text


class LogSigner:
    """The signing half of a log's key. Its repr shows the public half only."""

    def __init__(self, origin: str, seed: bytes) -> None:
        if len(seed) != 32:
            raise NoteRefused(f"a seed has 32 bytes, this one {len(seed)}")
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(origin, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, origin: str, seed: bytes) -> LogSigner:
        """Make a key from 32 fresh random bytes (the caller's, from the operating system).

        Raises:
            NoteRefused: the origin is empty or holds blanks or `+`, or the seed is not 32 bytes.
        """
        return cls(origin, seed)

    @classmethod
    def load(cls, path: Path) -> LogSigner:
        """Read a key that `save` wrote.

        Raises:
            NoteRefused: malformed, or the file may be read by group or others.
        """
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise NoteRefused(f"{path} is open to group or others; a signing key has mode 0600")
        text = path.read_text("utf-8").strip()
        if not text.startswith(_PRIVATE):
            raise NoteRefused(f"{path} holds no signing key")
        (origin, key_id), seed = _split_key(text.removeprefix(_PRIVATE))
        signer = cls(origin, seed)
        if key_id != signer.verifier.key_id.hex():
            raise NoteRefused("key id does not match the key")
        return signer

    def save(self, path: Path) -> None:
        """Write the SECRET key, mode 0600, durable; never over an existing file.

        Raises:
            FileExistsError: something is there already.
        """
        key = f"{_PRIVATE}{self.origin}+{self.verifier.key_id.hex()}+{_b64(_ED25519 + self._seed)}"
        write_new(path, (key + "\n").encode(), mode=0o600)

    @property
    def origin(self) -> str:
        """The log's name, first line of its every checkpoint."""
        return self.verifier.origin

    @property
    def vkey(self) -> str:
        """The verifying key as a string."""
        return self.verifier.vkey

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The signed note over `checkpoint`. The caller never signs two histories.

        Raises:
            NoteRefused: the checkpoint names another origin.
        """
        if checkpoint.origin != self.origin:
            raise NoteRefused(f"checkpoint of {checkpoint.origin!r}, key of {self.origin!r}")
        return self.sign_text(checkpoint.text)

    def vouch(self, covered: int, tail: bytes) -> bytes:
        """A signed note that this writer wrote these bytes behind a head of `covered` entries.

        It has four lines, so that it is never taken for a checkpoint, which has three.
        """
        return self.sign_text(_voucher(self.origin, covered, tail))

    def sign_text(self, text: str) -> bytes:
        """The signed note over any text that ends in a newline."""
        blob = self.verifier.key_id + self._key.sign(text.encode())
        return f"{text}\n\N{EM DASH} {self.origin} {_b64(blob)}\n".encode()

    def __repr__(self) -> str:
        return f"LogSigner({self.vkey!r}, secret redacted)"


def _voucher(origin: str, covered: int, tail: bytes) -> str:
    return f"written behind a head\n{origin}\n{covered}\n{_b64(sha256(tail))}\n"


def read_unverified(note: bytes) -> Checkpoint:
    """What a note states, its signature NOT checked: only for a verification without trust.

    Raises:
        NoteRefused: malformed.
    """
    return Checkpoint.from_text(_parse(note)[0])


def _parse(note: bytes) -> tuple[str, list[tuple[str, bytes]]]:
    """Split a note into its text and its (name, key id || signature) pairs."""
    if len(note) > _MAX_NOTE:
        raise NoteRefused(f"a note has at most {_MAX_NOTE} bytes, this one {len(note)}")
    try:
        content = note.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteRefused("a note is UTF-8") from None
    if any(ord(char) < 0x20 and char != "\n" for char in content):
        raise NoteRefused("a note holds no control characters")
    text, separator, block = content.rpartition("\n\n")
    if not separator or not block.endswith("\n"):
        raise NoteRefused("a note is a text, an empty line, and signature lines")
    lines = block[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise NoteRefused(f"a note has at most {_MAX_SIGNATURES} signatures")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "\N{EM DASH}" or _NAME.fullmatch(parts[1]) is None:
        raise NoteRefused("malformed signature line")
    blob = _unb64(parts[2], None)
    if len(blob) < 5:
        raise NoteRefused("malformed signature line")
    return parts[1], blob


def _split_key(text: str) -> tuple[tuple[str, str], bytes]:
    """(name, key id in hex) and the 32 bytes of a key string."""
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise NoteRefused("a key is <origin>+<key id>+<base64>")
    blob = _unb64(parts[2], 33)
    if blob[:1] != _ED25519:
        raise NoteRefused(f"key algorithm {blob[0]}; only 1 (Ed25519) is known")
    return (_check_name(parts[0]), parts[1]), blob[1:]


def _key_id(origin: str, public: bytes) -> bytes:
    """First 4 bytes of SHA-256(name || 0x0A || algorithm || public key) (signed-note)."""
    return sha256(origin.encode() + b"\n" + _ED25519 + public)[:4]


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise NoteRefused(f"origin {name[:60]!r}: 1 to 200 characters, no blanks, no +")
    return name


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str, length: int | None) -> bytes:
    """Strict base64: only the one canonical encoding of its bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteRefused("malformed base64") from None
    if _b64(data) != text or (length is not None and len(data) != length):
        raise NoteRefused("malformed base64 or wrong length")
    return data
