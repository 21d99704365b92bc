"""Vectors of the audit log: canonical JSON, entries, whole logs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from audit.canonical import dumps, loads, sha256
from audit.entry import decode_entry, encode_entry
from audit.merkle import (
    leaf_hash,
    root_of,
)
from audit.note import Checkpoint, LogSigner
from audit.verify import Verified, verify_log
from tests.audit.scenario import clock, digest, signer, write_log
from tests.vectors.format import Case, Format, bad

unhex = bytes.fromhex

# --- canonical JSON -------------------------------------------------------------------------------


def _good_canonical() -> list[Case]:
    values: list[Any] = [
        None,
        True,
        0,
        2**53 - 1,
        -(2**53) + 1,
        "",
        'a"\\\n\u00e9\U0001f600\x7f',
        [],
        {},
        {"b": 1, "a": [1, {"z": None, "y": "0.1"}]},
        {"\u20ac": 0, "\r": 0, "1": 0, "\U0001f600": 0, "\ufb33": 0},
    ]
    return [
        {"name": f"value {k}", "value": value, "bytes": dumps(value).hex()}
        for k, value in enumerate(values)
    ]


def _check_canonical(case: Case) -> None:
    assert loads(unhex(case["bytes"])) == case["value"]
    assert dumps(case["value"]).hex() == case["bytes"]


def _bad_canonical() -> list[Case]:
    rows: list[tuple[str, str, str, bytes]] = [
        ("a key twice", "TwoReadings", "duplicate key", b'{"a":1,"a":2}'),
        ("keys out of order", "TwoEncodings", "canonical", b'{"b":1,"a":2}'),
        ("a blank", "TwoEncodings", "canonical", b'{"a": 1}'),
        ("a needless escape", "TwoEncodings", "canonical", b'"\\u0041"'),
        ("minus zero", "TwoEncodings", "canonical", b"-0"),
        ("a blank behind it", "Trailing", "canonical", b"1 "),
        ("a second value", "Trailing", "not JSON", b"1{}"),
        ("a float", "Number", "is not an integer", b"1.5"),
        ("an exponent", "Number", "is not an integer", b"1e2"),
        ("not a number", "Number", "is not an integer", b"NaN"),
        ("2^53", "Number", "beyond 2^53", b"9007199254740992"),
        ("a lone surrogate", "NotText", "surrogate", b'"\\ud800"'),
        ("not UTF-8", "NotText", "not JSON", b'"\xff"'),
        ("33 levels", "Depth", "levels", b"[" * 33 + b"]" * 33),
        ("nothing", "CutOff", "not JSON", b""),
    ]
    return [bad(n, bug, "EntryRefused", why, bytes=data.hex()) for n, bug, why, data in rows]


CANONICAL = Format(
    name="canonical",
    about="RFC 8785 JSON with integers within 2^53 - 1 only; read back strictly.",
    bugs={
        "TwoReadings": "One reader takes the first of two values, another the last.",
        "TwoEncodings": "One value has two digests.",
        "Trailing": "Bytes that one reader ignores are hashed by another.",
        "Number": "Two languages read or print another number.",
        "NotText": "A reader replaces what it cannot read.",
        "Depth": "A reader runs out of stack.",
        "CutOff": "An entry that was never whole counts.",
    },
    good=_good_canonical,
    bad=_bad_canonical,
    check=_check_canonical,
    refuse=lambda case: loads(unhex(case["bytes"])),
)

# --- a whole log ----------------------------------------------------------------------------------


@contextmanager
def _log() -> Iterator[Path]:
    """The folder of a log with every kind of entry."""
    with tempfile.TemporaryDirectory() as folder:
        log = write_log(Path(folder) / "audit", rounds=2)
        log.close()
        yield Path(folder) / "audit"


def _lines() -> list[bytes]:
    with _log() as folder:
        return (folder / "log.jsonl").read_bytes().splitlines()


def _good_entry() -> list[Case]:
    return [
        {
            "name": f"entry {k}: {json.loads(raw)['kind']}",
            "entry": raw.decode(),
            "digest": sha256(raw).hex(),
            "leaf": leaf_hash(raw).hex(),
        }
        for k, raw in enumerate(_lines())
    ]


def _check_entry(case: Case) -> None:
    raw = case["entry"].encode()
    entry = decode_entry(raw)
    assert entry.digest.hex() == case["digest"]
    assert leaf_hash(raw).hex() == case["leaf"]


def _bad_entry() -> list[Case]:
    first = json.loads(_lines()[0])

    def case(name: str, bug: str, reason: str, **changes: Any) -> Case:
        return bad(name, bug, "EntryRefused", reason, entry=dumps({**first, **changes}).decode())

    body = first["body"]
    without = {k: v for k, v in body.items() if k != "run"}
    return [
        case("another version", "Version", "v: ", v=2),
        case("an unknown kind", "Unknown", "kind 'refund'", kind="refund"),
        case("a field too many", "Extra", "norm: ", body={**body, "norm": "0.5"}),
        case("a field in the envelope", "Extra", "note: ", note="x"),
        case("a field too few", "Missing", "run: ", body=without),
        case("a number for a text", "Type", "run: ", body={**body, "run": 7}),
        case("a text for a truth", "Type", "not_private: ", body={**body, "not_private": "no"}),
        case(
            "a digest in capitals", "Type", "code_digest: ", body={**body, "code_digest": "AA" * 32}
        ),
        case("a negative index", "Range", "index: ", index=-1),
        case("a time without a zone", "Type", "time: ", time="2026-01-31T12:00:00.000000"),
    ]


ENTRY = Format(
    name="entry",
    about=(
        "One line of canonical JSON: body, index, kind, prev (SHA-256 of the entry before, null in"
        " the first), run, time, v. digest is SHA-256 of the bytes, leaf SHA-256 of a zero byte and"
        " the bytes."
    ),
    bugs={
        "Version": "An entry of another format is read as this one.",
        "Unknown": "Something that has no meaning here is counted or passed over.",
        "Extra": "What must not be logged is, unseen.",
        "Missing": "A default stands where the writer said nothing.",
        "Type": "Two readers take a value for different things.",
        "Range": "A number that wraps is another number.",
    },
    good=_good_entry,
    bad=_bad_entry,
    check=_check_entry,
    refuse=lambda case: decode_entry(case["entry"].encode()),
)


def _good_log() -> list[Case]:
    with _log() as folder:
        verified = verify_log(folder, vkey=signer().vkey, pinned=None, spend=None)
        return [
            {
                "name": "every kind of entry",
                "vkey": signer().vkey,
                "log": (folder / "log.jsonl").read_text().splitlines(),
                "checkpoint": (folder / "checkpoint").read_text(),
                "size": verified.size,
                "root": verified.root.hex(),
                "released": verified.released,
                "aborted": verified.aborted,
            }
        ]


def _chained(told: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Lines of a log with these kinds and bodies, each bound to the one before."""
    lines: list[bytes] = []
    for index, (kind, body) in enumerate(told):
        prev = sha256(lines[-1]) if lines else None
        lines.append(
            encode_entry(kind, body, index=index, prev=prev, run=digest("run"), time=clock())
        )
    return [line.decode() for line in lines]


def _verified(case: Case) -> Verified:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log.jsonl").write_text("".join(line + "\n" for line in case["log"]))
        (folder / "checkpoint").write_text(case["checkpoint"])
        return verify_log(folder, vkey=case["vkey"], pinned=None, spend=None)


def _check_log(case: Case) -> None:
    verified = _verified(case)
    assert verified.root.hex() == case["root"]
    assert (verified.size, verified.released, verified.aborted) == (
        case["size"],
        case["released"],
        case["aborted"],
    )


def _bad_log() -> list[Case]:
    (good,) = _good_log()
    lines, own = good["log"], signer()

    def headed(changed: list[str], by: LogSigner = own) -> str:
        root = root_of([leaf_hash(line.encode()) for line in changed])
        return by.sign(Checkpoint(by.origin, len(changed), root)).decode()

    def case(
        name: str, bug: str, reason: str, log: list[str], checkpoint: str | None = None
    ) -> Case:
        head = good["checkpoint"] if checkpoint is None else checkpoint
        fields = {"vkey": good["vkey"], "log": log, "checkpoint": head}
        return bad(name, bug, "VerificationFailed", reason, **fields)

    told = [(entry["kind"], entry["body"]) for entry in map(json.loads, lines)]
    opened = next(k for k, (kind, _) in enumerate(told) if kind == "round-intent")
    taken_up = next(k for k, (kind, _) in enumerate(told) if kind == "resumed")

    def forged(name: str, reason: str, at: int, **changes: Any) -> Case:
        """A resumption that cannot have happened, in a chain that is whole and signed."""
        body = {**told[taken_up][1], **changes}
        wrong = _chained([*told[:at], ("resumed", body), *told[at:]])
        return case(name, "Resumed", reason, wrong, headed(wrong))

    other = signer(seed=2)
    swapped = [lines[0], lines[2], lines[1], *lines[3:]]
    changed = [*lines[:-1], lines[-1].replace('"report.json"', '"report.xml"')]
    cut = lines[:-1]
    return [
        case("the last entry is gone", "CutOff", "is missing", cut),
        case("an entry is changed", "Changed", "was changed", changed),
        case("two entries change places", "Order", "index", swapped, headed(swapped)),
        case("an entry twice", "Order", "index", [*lines, lines[-1]], headed([*lines, lines[-1]])),
        forged("resumed while a round is open", "is open", opened + 1),
        forged("resumed at an attempt that was begun", "is not after", taken_up, attempt=0),
        forged("resumed at an earlier round", "is not after", taken_up, round=1, attempt=5),
        forged("resumed at a later attempt than followed", "was resumed from", taken_up, attempt=2),
        forged("resumed from more entries than there were", "after only", taken_up, entries=99),
        forged("resumed after its report", "had ended", len(told), round=9),
        case("an entry that no head covers", "Uncovered", "not covered", lines, headed(cut)),
        case(
            "a head of another key", "OtherKey", "no signature by key", lines, headed(lines, other)
        ),
        case(
            "a head without signature",
            "Unsigned",
            "text, an empty line",
            lines,
            good["checkpoint"].split("\n\n")[0] + "\n",
        ),
    ]


LOG = Format(
    name="log",
    about=(
        "Lines of log.jsonl, the signed checkpoint (C2SP signed-note and tlog-checkpoint) and the"
        " key that the verifier has from elsewhere. Verified: number of entries, RFC 6962 root,"
        " rounds released and aborted."
    ),
    bugs={
        "CutOff": "Rounds that were charged are forgotten.",
        "Changed": "The past is rewritten.",
        "Order": "A signed history that cannot have happened is taken.",
        "Resumed": "A run goes on from where it never was, or an attempt is made twice.",
        "Uncovered": "What nobody signed counts.",
        "OtherKey": "Anybody's log is taken for this one.",
        "Unsigned": "Anybody's log is taken for this one.",
    },
    good=_good_log,
    bad=_bad_log,
    check=_check_log,
    refuse=_verified,
)

FORMATS = (CANONICAL, ENTRY, LOG)
