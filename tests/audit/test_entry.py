from __future__ import annotations

from typing import Any

import pytest

from audit.canonical import dumps, loads
from audit.entry import KINDS, MAX_ENTRY_BYTES, decode_entry, encode_entry
from audit.errors import ChainBroken, EntryRefused
from audit.replay import Replay
from tests.audit import scenario
from tests.audit.scenario import digest

BODIES: dict[str, dict[str, Any]] = {
    "genesis": scenario.genesis(),
    "budget-granted": scenario.grant(),
    "budget-spent": scenario.spent([{"event": scenario.event(), "count": 3}]),
    "round-intent": scenario.intent(1),
    "round-release": scenario.release(1, digest("intent")),
    "round-abort": scenario.abort(1),
    "recovered": {"covered": 1, "adopted": [], "dropped_bytes": 0, "dropped_digest": None},
    "resumed": scenario.resumed(2),
    "report-exported": {"files": {"report.json": digest("report")}},
}


def encode(kind: str, body: dict[str, Any], index: int = 1, run: str = "run") -> bytes:
    return encode_entry(kind, body, index=index, prev=b"\x01" * 32, run=run, time=scenario.clock())


def test_every_kind_has_a_body_here() -> None:
    assert set(BODIES) == set(KINDS)


@pytest.mark.parametrize("kind", BODIES)
def test_every_kind_is_written_and_read(kind: str) -> None:
    raw = encode(kind, BODIES[kind])
    entry = decode_entry(raw)
    assert (entry.raw, entry.kind, entry.index, entry.prev) == (raw, kind, 1, "01" * 32)


@pytest.mark.parametrize("kind", BODIES)
def test_a_missing_or_unknown_field_is_refused(kind: str) -> None:
    body = BODIES[kind]
    with pytest.raises(EntryRefused, match="surplus"):
        decode_entry(encode(kind, {**body, "surplus": 1}))
    for field in body.keys() - {"prior"}:
        with pytest.raises(EntryRefused, match=field):
            decode_entry(encode(kind, {key: body[key] for key in body if key != field}))


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("genesis", "config_digest", "0" * 63),
        ("genesis", "config_digest", "A" * 64),
        ("genesis", "config_digest", "0" * 64 + "\n"),
        ("genesis", "not_private", 0),
        ("genesis", "run", ""),
        ("budget-granted", "epsilon", "inf"),
        ("budget-granted", "epsilon", "much"),
        ("budget-granted", "epsilon", 3),
        ("round-intent", "round", -1),
        ("round-intent", "round", True),
        ("round-intent", "round", "1"),
        ("round-intent", "clip", "nan"),
        ("round-intent", "counts", {"selected": 1}),
        ("round-release", "spend", {"aggregator": {"rdp": "-inf"}}),
        ("round-release", "evaluation", ""),
        ("round-abort", "reason", "x" * 2001),
        ("report-exported", "files", {"a": "b"}),
    ],
)
def test_ill_typed_fields_are_refused_by_name(kind: str, field: str, value: Any) -> None:
    with pytest.raises(EntryRefused, match=field):
        decode_entry(encode(kind, {**BODIES[kind], field: value}))


def test_a_spend_may_be_infinite() -> None:
    body = {**BODIES["round-release"], "spend": {"broken_sum": {"rdp": "inf"}}}
    decode_entry(encode("round-release", body))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2),
        ("v", True),
        ("kind", "unheard-of"),
        ("index", -1),
        ("prev", "00"),
        ("time", "2026-01-31T12:00:00Z"),
        ("time", "2026-01-31T12:00:00.000000+00:00"),
        ("body", []),
        ("surplus", 1),
    ],
)
def test_a_strange_envelope_is_refused(field: str, value: Any) -> None:
    envelope = loads(encode("report-exported", BODIES["report-exported"]))
    with pytest.raises(EntryRefused):
        decode_entry(dumps({**envelope, field: value}))
    with pytest.raises(EntryRefused):
        decode_entry(dumps([envelope]))


def test_the_length_of_an_entry_is_bounded() -> None:
    files = {f"{number:04}": digest("x") for number in range(1000)}
    raw = encode("report-exported", {"files": files})
    with pytest.raises(EntryRefused, match="65535"):
        decode_entry(raw)
    assert MAX_ENTRY_BYTES == 65_535
    few = dict(list(files.items())[:800])
    decode_entry(encode("report-exported", {"files": few}))


def test_an_entry_of_another_run_place_or_past_is_refused() -> None:
    replay = Replay(scenario.ORIGIN)
    run = scenario.digest("run")

    def raw(kind: str, index: int, prev: bytes | None, run: str = run) -> bytes:
        return encode_entry(
            kind, BODIES[kind], index=index, prev=prev, run=run, time=scenario.clock()
        )

    with pytest.raises(EntryRefused, match="envelope of run"):
        replay.take(raw("genesis", 0, None, "other"))
    with pytest.raises(ChainBroken):
        replay.take(raw("genesis", 0, bytes(32)))
    with pytest.raises(EntryRefused, match="first entry is a genesis"):
        replay.take(raw("report-exported", 0, None))
    tip = replay.take(raw("genesis", 0, None)).digest
    with pytest.raises(EntryRefused, match="in the log of run"):
        replay.take(raw("report-exported", 1, tip, "other"))
    with pytest.raises(EntryRefused, match="index 2"):
        replay.take(raw("report-exported", 2, tip))
    with pytest.raises(ChainBroken):
        replay.take(raw("report-exported", 1, None))
    assert (replay.size, replay.tip) == (1, tip)
