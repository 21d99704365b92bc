from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

import pytest

from audit.canonical import sha256
from audit.entry import decode_entry, encode_entry
from audit.errors import AuditError, EntryRefused, LogCorrupt, LogLocked, NoteRefused, WriteFailed
from audit.log import AuditLog
from audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from audit.pin import PinStore
from audit.replay import split_lines
from audit.verify import verify_log
from tests.audit import scenario


def reopen(directory: Path, pinned: bytes | None = None) -> AuditLog:
    return AuditLog.open(directory, scenario.signer(), clock=scenario.clock, pinned=pinned)


def test_a_log_verifies_with_key_and_pin_and_goes_on_after_reopening(tmp_path: Path) -> None:
    log = scenario.write_log(tmp_path / "audit")
    pins = PinStore(tmp_path / "state")
    pins.save("run", scenario.signer().vkey, log.head)
    log.close()
    pin = pins.load("run")
    assert pin is not None
    with reopen(tmp_path / "audit", pinned=pin.checkpoint) as again:
        assert again.head == pin.checkpoint
        again.append("report-exported", {"files": {}})
    verified = verify_log(tmp_path / "audit", vkey=pin.vkey, pinned=pin.checkpoint, spend=None)
    assert (verified.trust, verified.size, verified.pinned_size) == ("pinned", 14, 13)
    assert (verified.released, verified.aborted, verified.open_round) == (3, 2, None)
    given = verify_log(tmp_path / "audit", vkey=pin.vkey, pinned=None, spend=None)
    none = verify_log(tmp_path / "audit", vkey=None, pinned=None, spend=None)
    assert (given.trust, none.trust) == ("given", "none")
    assert given.root == none.root == verified.root


def test_an_entry_says_where_it_stands(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    appended = log.append("budget-granted", scenario.grant())
    lines, rest = split_lines((tmp_path / "log.jsonl").read_bytes())
    entry = decode_entry(lines[1])
    assert rest == b""
    assert (entry.index, entry.kind, entry.run) == (1, "budget-granted", scenario.digest("run"))
    assert entry.prev == decode_entry(lines[0]).digest.hex()
    assert entry.time == "2026-01-31T12:00:00.123456Z"
    assert (appended.index, appended.digest, appended.head) == (1, entry.digest, log.head)
    assert (tmp_path / "checkpoint").read_bytes() == log.head
    assert not [path for path in tmp_path.iterdir() if "key" in path.name]


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    for attempt in (AuditLog.open, AuditLog.create):
        with pytest.raises(LogLocked):
            attempt(tmp_path, scenario.signer(), clock=scenario.clock)
    log.append("budget-granted", scenario.grant())
    log.close()
    log.close()
    with pytest.raises(WriteFailed):
        log.append("report-exported", {"files": {}})
    with reopen(tmp_path) as again:
        assert again.size == 2


def test_a_refused_entry_leaves_no_trace(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    before = (tmp_path / "log.jsonl").read_bytes()
    for kind, body in [
        ("genesis", scenario.genesis()),
        ("unheard-of", {}),
        ("round-release", scenario.release(1, scenario.digest("no intent"))),
        ("report-exported", {"files": {}, "more": 1}),
        ("report-exported", {"files": {"a": 0.5}}),
        ("report-exported", {"files": {"x" * 66_000: scenario.digest("x")}}),
    ]:
        with pytest.raises(EntryRefused):
            log.append(kind, body)
    assert (tmp_path / "log.jsonl").read_bytes() == before
    log.append("report-exported", {"files": {}})
    log.close()
    reopen(tmp_path).close()


def test_a_genesis_of_another_log_is_refused(tmp_path: Path) -> None:
    log = AuditLog.create(tmp_path, scenario.signer(), clock=scenario.clock)
    with pytest.raises(EntryRefused, match="another log"):
        log.append("genesis", scenario.genesis(origin="elsewhere"))
    with pytest.raises(EntryRefused, match="first entry"):
        log.append("budget-granted", scenario.grant())


def test_a_clock_without_a_zone_is_refused(tmp_path: Path) -> None:
    log = AuditLog.create(tmp_path, scenario.signer(), clock=lambda: datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(EntryRefused, match="zone"):
        log.append("genesis", scenario.genesis())


def test_the_open_round_is_known_after_a_restart(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    assert log.open_intent is None
    opened = log.append("round-intent", scenario.intent(1))
    log.close()
    with reopen(tmp_path) as again:
        assert again.open_intent is not None
        assert again.open_intent.digest == opened.digest
        closing = scenario.abort(1, intent=opened.digest.hex(), charged=True)
        again.append("round-abort", closing)
        assert again.open_intent is None


def test_proofs_of_the_writer_verify(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    old_size, old_root = log.size, log.root
    log.append("budget-granted", scenario.grant())
    log.append("report-exported", {"files": {}})
    proof = log.prove_consistency(old_size)
    verify_consistency(old_size, old_root, log.size, log.root, proof)
    lines, _ = split_lines((tmp_path / "log.jsonl").read_bytes())
    verify_inclusion(leaf_hash(lines[1]), 1, log.size, log.prove_inclusion(1), log.root)


def test_a_log_is_not_created_over_another(tmp_path: Path) -> None:
    scenario.start(tmp_path).close()
    with pytest.raises(AuditError, match="holds a log already"):
        AuditLog.create(tmp_path, scenario.signer(), clock=scenario.clock)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(AuditError, match="holds a log already"):
        AuditLog.create(tmp_path, scenario.signer(), clock=scenario.clock)
    with pytest.raises(LogCorrupt, match="without a head"):
        reopen(tmp_path)


def test_only_a_log_is_opened(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(AuditError, match="no log"):
            reopen(directory)


def test_a_log_that_contradicts_its_head_is_not_opened_for_writing(tmp_path: Path) -> None:
    scenario.write_log(tmp_path / "good").close()
    stored = (tmp_path / "good" / "log.jsonl").read_bytes()
    lines = stored.splitlines(keepends=True)
    head = (tmp_path / "good" / "checkpoint").read_bytes()
    other = scenario.signer(2)
    changes: dict[str, tuple[str, bytes]] = {
        "an entry is missing": ("log.jsonl", b"".join(lines[:-1])),
        "an entry is changed": ("log.jsonl", stored.replace(b'"reported":7', b'"reported":8', 1)),
        "the last entry is changed": ("log.jsonl", stored.replace(b"report.json", b"report.jsom")),
        "the head is another's": (
            "checkpoint",
            other.sign(other.verifier.open(other.sign_text(head.decode().split("\n\n")[0] + "\n"))),
        ),
        "the head is damaged": ("checkpoint", head[:-5]),
        "more than a crash can leave": ("log.jsonl", stored + lines[-1] + lines[-1]),
        "a whole entry that is out of place": ("log.jsonl", stored + lines[-1]),
    }
    for name, (file, content) in changes.items():
        directory = tmp_path / name
        shutil.copytree(tmp_path / "good", directory)
        (directory / file).write_bytes(content)
        with pytest.raises(LogCorrupt):
            reopen(directory)
        assert (directory / file).read_bytes() == content


def test_a_head_set_back_is_not_taken_for_a_crash(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    old = log.head
    log.append("budget-granted", scenario.grant())
    latest = log.append("report-exported", {"files": {}}).head
    log.close()
    (tmp_path / "checkpoint").write_bytes(old)
    with pytest.raises(LogCorrupt, match="set back"):
        reopen(tmp_path)
    with pytest.raises(LogCorrupt, match="the pinned one 3"):
        reopen(tmp_path, pinned=latest)


def test_a_foreign_entry_beyond_the_head_is_not_adopted(tmp_path: Path) -> None:
    scenario.start(tmp_path).close()
    stored = (tmp_path / "log.jsonl").read_bytes()
    foreign = stored.replace(b'"index":0', b'"index":1')
    for beyond in (foreign, b"torn\n" + foreign, foreign + b"torn"):
        (tmp_path / "log.jsonl").write_bytes(stored + beyond)
        with pytest.raises(LogCorrupt, match="entry 1"):
            reopen(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(stored + b"torn with a newline\n")
    with reopen(tmp_path) as log:
        assert log.size == 2


def test_a_well_formed_entry_of_somebody_else_is_not_signed(tmp_path: Path) -> None:
    """To make an entry that fits takes no key: only the writer's own signature vouches for it."""
    log = scenario.start(tmp_path)
    pending = (tmp_path / "pending").read_bytes()
    log.append("budget-granted", scenario.grant())
    log.close()
    stored = (tmp_path / "log.jsonl").read_bytes()
    head = (tmp_path / "checkpoint").read_bytes()
    forged = encode_entry(
        "report-exported",
        {"files": {"report.json": "0" * 64}},
        index=2,
        prev=sha256(stored.splitlines()[-1]),
        run=decode_entry(stored.splitlines()[-1]).run,
        time=scenario.clock(),
    )
    (tmp_path / "log.jsonl").write_bytes(stored + forged + b"\n")
    for vouching in (b"", pending, (tmp_path / "pending").read_bytes(), head, b"\0\xff\0"):
        (tmp_path / "pending").write_bytes(vouching)
        with pytest.raises(LogCorrupt, match="somebody else"):
            reopen(tmp_path)
    (tmp_path / "pending").unlink()
    with pytest.raises(LogCorrupt, match="somebody else"):
        reopen(tmp_path)
    assert (tmp_path / "checkpoint").read_bytes() == head
    (tmp_path / "log.jsonl").write_bytes(stored)
    with reopen(tmp_path) as again:
        assert again.size == 2


def test_an_interrupted_append_stops_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = scenario.start(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("audit.replay.Replay.take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append("report-exported", {"files": {}})
    with pytest.raises(WriteFailed, match="open the log again"):
        log.append("report-exported", {"files": {}})


def test_a_log_of_another_history_than_the_pinned_is_not_opened(tmp_path: Path) -> None:
    log = scenario.start(tmp_path / "a")
    pinned = log.append("budget-granted", scenario.grant()).head
    log.close()
    log = scenario.start(tmp_path / "b")
    log.append("budget-granted", scenario.grant(approver="somebody else"))
    log.append("report-exported", {"files": {}})
    log.close()
    with pytest.raises(LogCorrupt, match="pinned"):
        reopen(tmp_path / "b", pinned=pinned)


def test_a_file_changed_under_the_writer_stops_it(tmp_path: Path) -> None:
    log = scenario.start(tmp_path)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b"x")
    with pytest.raises(LogCorrupt, match="its writer left"):
        log.append("report-exported", {"files": {}})
    with pytest.raises(WriteFailed):
        log.append("report-exported", {"files": {}})


def test_damaged_leaf_hashes_are_rebuilt(tmp_path: Path) -> None:
    scenario.write_log(tmp_path).close()
    good = (tmp_path / "leaves").read_bytes()
    (tmp_path / "leaves").write_bytes(b"x" + good)
    reopen(tmp_path).close()
    assert (tmp_path / "leaves").read_bytes() == good


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    log = scenario.start(tmp_path / "log")
    (tmp_path / "log" / "log.jsonl").rename(tmp_path / "elsewhere")
    (tmp_path / "log" / "log.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WriteFailed):
        log.append("report-exported", {"files": {}})


def test_an_origin_must_be_a_name() -> None:
    with pytest.raises(NoteRefused):
        scenario.signer(origin="two words")
