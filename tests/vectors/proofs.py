"""Vectors of the audit log's heads: Merkle proofs and signed notes."""

from __future__ import annotations

from typing import Any

from audit.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from audit.note import Checkpoint, LogSigner, Verifier
from tests.vectors.format import Case, Format, bad
from tests.vectors.primitives import stream

unhex = bytes.fromhex


def _leaves(size: int) -> list[bytes]:
    return [leaf_hash(f"entry {k}".encode()) for k in range(size)]


def _good_merkle() -> list[Case]:
    cases: list[Case] = [{"name": "no leaves", "size": 0, "root": root_of([]).hex()}]
    for size, index, old in ((1, 0, 1), (2, 1, 1), (7, 5, 3), (8, 0, 4), (13, 12, 6)):
        leaves = _leaves(size)
        cases.append(
            {
                "name": f"leaf {index} of {size}, which extends {old}",
                "size": size,
                "root": root_of(leaves).hex(),
                "index": index,
                "leaf": leaves[index].hex(),
                "inclusion": [h.hex() for h in inclusion_proof(leaves, index)],
                "old_size": old,
                "old_root": root_of(leaves[:old]).hex(),
                "consistency": [h.hex() for h in consistency_proof(leaves, old)],
            }
        )
    return cases


def _proofs(case: Case) -> None:
    root, size = unhex(case["root"]), case["size"]
    inclusion = [unhex(h) for h in case["inclusion"]]
    verify_inclusion(unhex(case["leaf"]), case["index"], size, inclusion, root)
    consistency = [unhex(h) for h in case["consistency"]]
    verify_consistency(case["old_size"], unhex(case["old_root"]), size, root, consistency)


def _check_merkle(case: Case) -> None:
    assert root_of(_leaves(case["size"])).hex() == case["root"]
    if "leaf" in case:
        _proofs(case)


def _bad_merkle() -> list[Case]:
    right = next(case for case in _good_merkle() if case["size"] == 7)
    del right["name"]

    def case(name: str, bug: str, reason: str, **changes: Any) -> Case:
        return bad(name, bug, "ProofRefused", reason, **{**right, **changes})

    proof, path = right["inclusion"], right["consistency"]
    zero = "00" * 32
    return [
        case("another leaf", "Wrong", "another root", leaf=zero),
        case("another place", "Wrong", "another root", index=4),
        case("a place outside", "Range", "not among 7", index=7),
        case("too short", "Length", "too short", inclusion=proof[:-1]),
        case("too long", "Length", "too long", inclusion=[*proof, zero]),
        case("a hash of 31 bytes", "Length", "32 bytes", inclusion=[zero[:-2], *proof[1:]]),
        case(
            "a node as a leaf",
            "NodeAsLeaf",
            "root",
            leaf=right["root"],
            index=0,
            size=1,
            inclusion=[],
            old_size=0,
        ),
        case("a rewritten past", "Rewritten", "rewritten", old_root=zero),
        case("no proof of consistency", "Length", "too short", consistency=[]),
        case("too much of one", "Length", "too long", consistency=[*path, zero]),
        case("a tree that shrank", "Range", "cannot extend", old_size=8),
    ]


MERKLE = Format(
    name="merkle",
    about=(
        "RFC 6962 section 2.1. Leaf k is SHA-256 of a zero byte and the text 'entry k'; inclusion"
        " lists the lowest sibling first."
    ),
    bugs={
        "Wrong": "An entry that is not in the log is taken to be.",
        "Range": "A proof about a tree that does not exist.",
        "Length": "A proof that is too short or long proves another tree.",
        "NodeAsLeaf": "An inner node passes for an entry.",
        "Rewritten": "A log is taken to extend what it does not.",
    },
    good=_good_merkle,
    bad=_bad_merkle,
    check=_check_merkle,
    refuse=_proofs,
)

_ORIGIN = "fedmeta.example/vectors"


def _note(text: str | None = None) -> tuple[LogSigner, bytes]:
    by = LogSigner.generate(_ORIGIN, stream("log key", 32))
    checkpoint = Checkpoint(_ORIGIN, 3, root_of(_leaves(3)))
    return by, by.sign_text(checkpoint.text if text is None else text)


def _good_note() -> list[Case]:
    by, note = _note()
    other = LogSigner.generate("witness.example", stream("witness", 32))
    extra = other.sign_text(note.decode().split("\n\n")[0] + "\n").decode().split("\n\n")[1]
    common = {"seed": stream("log key", 32).hex(), "vkey": by.vkey, "origin": _ORIGIN, "size": 3}
    common["root"] = root_of(_leaves(3)).hex()
    return [
        {"name": "one signature", "note": note.decode(), **common},
        {"name": "a witness signed too", "note": note.decode() + extra, **common},
    ]


def _check_note(case: Case) -> None:
    checkpoint = Verifier.from_vkey(case["vkey"]).open(case["note"].encode())
    assert (checkpoint.origin, checkpoint.size) == (case["origin"], case["size"])
    assert checkpoint.root.hex() == case["root"]
    assert LogSigner.generate(case["origin"], unhex(case["seed"])).vkey == case["vkey"]
    if case["name"] == "one signature":
        by = LogSigner.generate(case["origin"], unhex(case["seed"]))
        assert by.sign(checkpoint).decode() == case["note"]


def _bad_note() -> list[Case]:
    by, note = _note()
    text = note.decode()
    lines = text.split("\n")
    root = lines[2]

    def case(name: str, bug: str, reason: str, changed: str, vkey: str = by.vkey) -> Case:
        return bad(name, bug, "NoteRefused", reason, note=changed, vkey=vkey)

    def signed(body: str) -> str:
        return _note(body)[1].decode()

    other = LogSigner.generate(_ORIGIN, stream("other", 32))
    renumbered = by.vkey.replace(by.vkey.split("+")[1], "00000000")
    return [
        case("another size", "Unsigned", "does not match", text.replace("\n3\n", "\n4\n", 1)),
        case("another key", "OtherKey", "no signature by key", text, other.vkey),
        case("no signature", "Unsigned", "an empty line", "\n".join(lines[:3]) + "\n"),
        case("another origin", "OtherLog", "checkpoint of", signed(f"other.example\n3\n{root}\n")),
        case("a size with a zero", "TwoEncodings", "malformed", signed(f"{_ORIGIN}\n03\n{root}\n")),
        case("a short root", "WrongLength", "base64", signed(f"{_ORIGIN}\n3\nAAAA\n")),
        case("a line more", "Extra", "three lines", signed(f"{_ORIGIN}\n3\n{root}\nmore\n")),
        case("a tab", "Control", "control characters", text.replace("\n3\n", "\n3\t\n", 1)),
        case("a key id of another key", "OtherKey", "key id does not match", text, renumbered),
    ]


NOTE = Format(
    name="note",
    about=(
        "C2SP signed-note and tlog-checkpoint, Ed25519: origin, size and base64 root on three"
        " lines, an empty line, signature lines of an em dash, the name and base64 of key id and"
        " signature over the three lines. vkey is origin+key id+base64(1 | public key)."
    ),
    bugs={
        "Unsigned": "Anybody can state a head.",
        "OtherKey": "A head of another log's key is taken.",
        "OtherLog": "The key signed it, for another log.",
        "TwoEncodings": "One head has two texts.",
        "WrongLength": "A root that is none.",
        "Extra": "Lines that one reader ignores are signed.",
        "Control": "People see another text than programs.",
    },
    good=_good_note,
    bad=_bad_note,
    check=_check_note,
    refuse=lambda case: Verifier.from_vkey(case["vkey"]).open(case["note"].encode()),
)

FORMATS = (MERKLE, NOTE)
