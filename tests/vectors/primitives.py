"""Vectors of the building blocks: ring packing, key streams, secret sharing, encoding."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from crypto.codec import Reader, Writer, frame, tagged_digest
from crypto.prg import expand
from crypto.ring import Ring
from crypto.shamir import combine, split
from tests.vectors.format import Case, Format, bad

unhex = bytes.fromhex


def stream(label: str, size: int) -> bytes:
    """Test bytes: SHA-256 of label and counter."""
    blocks = (hashlib.sha256(f"{label}/{k}".encode()).digest() for k in range(-(-size // 32)))
    return b"".join(blocks)[:size]


# --- ring -----------------------------------------------------------------------------------------


def _ring_values(bits: int, length: int) -> list[int]:
    half = 1 << (bits - 1)
    edges = [0, -1, half - 1, -half, 1]
    drawn = np.frombuffer(stream(f"ring {bits}", 8 * length), dtype="<u8")
    return [*edges, *(int(v) % (2 * half) - half for v in drawn)][:length]


def _good_ring() -> list[Case]:
    cases = []
    for bits, length in ((2, 9), (3, 4), (7, 11), (8, 5), (23, 7), (32, 6), (33, 7), (62, 5)):
        values = _ring_values(bits, length)
        ring = Ring(bits)
        packed = ring.pack(ring.encode(np.array(values, dtype=np.int64)))
        cases.append(
            {
                "name": f"{length} values of {bits} bits",
                "bits": bits,
                "values": [str(v) for v in values],
                "packed": packed.hex(),
            }
        )
    return [*cases, {"name": "nothing", "bits": 20, "values": [], "packed": ""}]


def _check_ring(case: Case) -> None:
    ring, values = Ring(case["bits"]), [int(v) for v in case["values"]]
    decoded = ring.decode(ring.unpack(unhex(case["packed"]), len(values)))
    assert [int(v) for v in decoded] == values
    assert ring.pack(ring.encode(np.array(values, dtype=np.int64))).hex() == case["packed"]
    number = sum((v % ring.modulus) << (k * ring.bits) for k, v in enumerate(values))
    assert number.to_bytes(ring.packed_size(len(values)), "little").hex() == case["packed"]


def _bad_ring() -> list[Case]:
    whole = Ring(3).pack(np.array([1, 2, 7, 5], dtype=np.uint64))

    def case(name: str, bug: str, reason: str, packed: bytes) -> Case:
        return bad(name, bug, "Malformed", reason, bits=3, length=4, packed=packed.hex())

    return [
        case("a byte too few", "WrongLength", "need 2 bytes, got 1", whole[:-1]),
        case("a byte too many", "WrongLength", "need 2 bytes, got 3", whole + b"\0"),
        case("nothing", "WrongLength", "need 2 bytes, got 0", b""),
        case("lowest pad bit", "PadBits", "pad bits", bytes([whole[0], whole[1] | 0x10])),
        case("highest pad bit", "PadBits", "pad bits", bytes([whole[0], whole[1] | 0x80])),
    ]


RING = Format(
    name="ring",
    about=(
        "Signed integers v in [-2^(b-1), 2^(b-1)) as residues v mod 2^b; residue k stands in bits"
        " [k*b, (k+1)*b) of one little-endian bit string, that is, the bytes are the little-endian"
        " integer sum of residue_k * 2^(k*b), ceil(d*b/8) bytes long, pad bits zero. Values are"
        " decimal strings."
    ),
    bugs={
        "WrongLength": "A shorter or longer vector is added, shifted against the others.",
        "PadBits": "Two encodings of one vector: digests and signatures of equal vectors differ.",
    },
    good=_good_ring,
    bad=_bad_ring,
    check=_check_ring,
    refuse=lambda case: Ring(case["bits"]).unpack(unhex(case["packed"]), case["length"]),
)

# --- key streams ----------------------------------------------------------------------------------


def _good_prg() -> list[Case]:
    cases = []
    for bits, length in ((1 + 1, 9), (20, 8), (32, 8), (33, 6), (62, 4)):
        key = stream(f"prg {bits}", 32)
        residues = [str(v) for v in expand(key, Ring(bits), length)]
        cases.append({"name": f"{bits} bits", "key": key.hex(), "bits": bits, "residues": residues})
    return cases


def _check_prg(case: Case) -> None:
    found = expand(unhex(case["key"]), Ring(case["bits"]), len(case["residues"]))
    assert [str(v) for v in found] == case["residues"]


def _bad_prg() -> list[Case]:
    reason = "allowed: 32"
    return [
        bad(f"{size} bytes", "ShortKey", "KeyRefused", reason, key=bytes(size).hex(), bits=20)
        for size in (0, 3, 16, 24, 31, 33)
    ]


PRG = Format(
    name="prg",
    about=(
        "AES-256 in counter mode: block k is AES(key, counter k + 2) with a big-endian counter of"
        " 128 bits. The stream is cut into lanes, 4 bytes little-endian up to 32 bits per value,"
        " else 8, and a residue is the low b bits of its lane."
    ),
    bugs={
        "ShortKey": "A key of less than 256 bits, or AES-128 by accident: masks can be searched."
    },
    good=_good_prg,
    bad=_bad_prg,
    check=_check_prg,
    refuse=lambda case: expand(unhex(case["key"]), Ring(case["bits"]), 1),
)

# --- secret sharing -------------------------------------------------------------------------------


def _good_shamir() -> list[Case]:
    cases = []
    for size, shares, threshold in ((1, 3, 2), (32, 5, 3), (32, 1, 1), (3, 255, 129)):
        secret = stream(f"secret {shares}", size)
        coefficients = stream(f"coefficients {shares}", (threshold - 1) * size)
        dealt = split(
            secret, shares=shares, threshold=threshold, rand=lambda n, drawn=coefficients: drawn[:n]
        )
        cases.append(
            {
                "name": f"{threshold} of {shares}, {size} bytes",
                "threshold": threshold,
                "secret": secret.hex(),
                "coefficients": coefficients.hex(),
                "shares": {str(k): share.hex() for k, share in enumerate(dealt, start=1)},
            }
        )
    return cases


def _check_shamir(case: Case) -> None:
    dealt = {int(k): unhex(share) for k, share in case["shares"].items()}
    secret, threshold = unhex(case["secret"]), case["threshold"]
    for holders in (sorted(dealt)[:threshold], sorted(dealt)[-threshold:]):
        assert combine({k: dealt[k] for k in holders}, threshold=threshold) == secret
    drawn = unhex(case["coefficients"])
    again = split(secret, shares=len(dealt), threshold=threshold, rand=lambda n: drawn[:n])
    assert dict(enumerate(again, start=1)) == dealt


def _bad_shamir() -> list[Case]:
    def case(name: str, bug: str, reason: str, shares: dict[int, bytes], threshold: int) -> Case:
        held = {str(k): share.hex() for k, share in shares.items()}
        return bad(name, bug, "SharesRefused", reason, shares=held, threshold=threshold)

    one = b"\x11" * 32
    return [
        case("too few", "WrongCount", "exactly the threshold 3", {1: one, 2: one}, 3),
        case("too many", "WrongCount", "exactly the threshold 2", {1: one, 2: one, 3: one}, 2),
        case("none at all", "WrongCount", "exactly the threshold 0", {}, 0),
        case("holder 0", "SecretAsShare", "holders 0 to 2", {0: one, 2: one}, 2),
        case("holder 256", "OutsideField", "holders 1 to 256", {1: one, 256: one}, 2),
        case("unequal lengths", "WrongLength", "unequal length", {1: one, 2: one[:-1]}, 2),
    ]


SHAMIR = Format(
    name="shamir",
    about=(
        "Byte by byte over GF(2^8) modulo x^8 + x^4 + x^3 + x + 1 (FIPS 197). The polynomial of"
        " byte k is secret[k] + coefficients[k] x + coefficients[L + k] x^2 + ... for L bytes; the"
        " share"
        " of holder x = 1, 2, ... is its value at x."
    ),
    bugs={
        "WrongCount": "Fewer shares than the threshold interpolate to something; it is no secret.",
        "SecretAsShare": "The value at 0 is the secret itself: whoever sends share 0 chooses it.",
        "OutsideField": "A holder that wraps modulo 256 is another holder.",
        "WrongLength": "Shares of two secrets are mixed.",
    },
    good=_good_shamir,
    bad=_bad_shamir,
    check=_check_shamir,
    refuse=lambda case: combine(
        {int(k): unhex(share) for k, share in case["shares"].items()}, threshold=case["threshold"]
    ),
)

# --- encoding -------------------------------------------------------------------------------------

_FIELDS: list[tuple[str, Any]] = [
    ("u8", 0),
    ("u8", 255),
    ("u32", 1),
    ("u32", 2**32 - 1),
    ("u64", 2**64 - 1),
    ("sized", ""),
    ("sized", "00ff"),
    ("text", "gr\u00fc\u00df"),
]


def _written(fields: list[tuple[str, Any]]) -> bytes:
    writer = Writer()
    for kind, value in fields:
        getattr(writer, kind)(unhex(value) if kind == "sized" else value)
    return writer.done()


def _read(kinds: list[str], data: bytes) -> list[Any]:
    reader = Reader(data)
    found = [getattr(reader, kind)() for kind in kinds]
    reader.end()
    return [value.hex() if isinstance(value, bytes) else value for value in found]


def _good_codec() -> list[Case]:
    lists = [[], ["00"], ["", ""], ["61", "62"], ["6162"]]
    return [
        {"name": "fields", "fields": _FIELDS, "bytes": _written(_FIELDS).hex()},
        *(
            {
                "name": f"frame of {len(parts)} parts, {k}",
                "label": "label",
                "parts": parts,
                "frame": frame("label", *map(unhex, parts)).hex(),
                "digest": tagged_digest("label", *map(unhex, parts)).hex(),
            }
            for k, parts in enumerate(lists)
        ),
    ]


def _check_codec(case: Case) -> None:
    if "fields" in case:
        fields = [(kind, value) for kind, value in case["fields"]]
        assert _written(fields).hex() == case["bytes"]
        kinds = [kind for kind, _ in fields]
        assert _read(kinds, unhex(case["bytes"])) == [value for _, value in fields]
        return
    parts = [unhex(part) for part in case["parts"]]
    assert frame(case["label"], *parts).hex() == case["frame"]
    assert tagged_digest(case["label"], *parts).hex() == case["digest"]
    assert hashlib.sha256(unhex(case["frame"])).hexdigest() == case["digest"]


def _bad_codec() -> list[Case]:
    def case(name: str, bug: str, reason: str, kinds: list[str], data: bytes) -> Case:
        return bad(name, bug, "Malformed", reason, kinds=kinds, bytes=data.hex())

    long = (2**32 - 1).to_bytes(4, "little")
    return [
        case("a byte left over", "Trailing", "1 bytes left over", ["u8"], b"\0\0"),
        case("cut integer", "CutOff", "4 bytes wanted, 3 left", ["u32"], b"\0\0\0"),
        case("cut bytes", "CutOff", "2 bytes wanted, 1 left", ["sized"], b"\2\0\0\0a"),
        case("length beyond the end", "HugeLength", "4294967295 bytes", ["sized"], long + b"a"),
        case("not UTF-8", "NotText", "not UTF-8", ["text"], b"\2\0\0\0\xc3\x28"),
        case("overlong UTF-8", "NotText", "not UTF-8", ["text"], b"\2\0\0\0\xc0\x80"),
    ]


CODEC = Format(
    name="codec",
    about=(
        "Integers of 1, 4 or 8 bytes, little-endian; bytes and UTF-8 text behind their length as"
        " u32. A frame is label and parts, each behind its length, with the number of parts after"
        " the label: u32 | label | u32 parts | (u32 | part) for each. A tagged digest is SHA-256 of"
        " a frame. Field 'sized' is given in hexadecimal."
    ),
    bugs={
        "Trailing": "Bytes that one reader ignores are bytes that a signature does not mean.",
        "CutOff": "A reader that fills up with zeros reads what nobody wrote.",
        "HugeLength": "Memory is taken by the length that a message claims.",
        "NotText": "Two names that look alike, or a reader that crashes.",
    },
    good=_good_codec,
    bad=_bad_codec,
    check=_check_codec,
    refuse=lambda case: _read(case["kinds"], unhex(case["bytes"])),
)

FORMATS = (RING, PRG, SHAMIR, CODEC)
