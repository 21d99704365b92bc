"""Every call to the disk, cut off or failed, with what it wrote kept, lost or torn."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.entry import decode_entry
from audit.errors import WriteFailed
from audit.log import AuditLog
from audit.merkle import leaf_hash, root_of
from audit.replay import split_lines
from audit.verify import verify_log
from tests.audit import scenario
from tests.audit.disk import FATES, Fate, PowerCut, SimulatedDisk

NOWHERE = Path("/nowhere")
BODIES: list[tuple[str, Callable[[bytes], dict[str, Any]]]] = [
    ("genesis", lambda last: scenario.genesis()),
    ("budget-granted", lambda last: scenario.grant()),
    ("round-intent", lambda last: scenario.intent(1)),
    ("round-release", lambda last: scenario.release(1, last.hex())),
    ("report-exported", lambda last: {"files": {}}),
]


def write_until_cut(disk: SimulatedDisk) -> list[bytes]:
    """Write the entries of BODIES; the digests of those that were acknowledged."""
    acknowledged: list[bytes] = []
    try:
        log = AuditLog.create(NOWHERE, scenario.signer(), clock=scenario.clock, disk=disk)
        for kind, body in BODIES:
            last = acknowledged[-1] if acknowledged else b""
            acknowledged.append(log.append(kind, body(last)).digest)
    except PowerCut:
        pass
    return acknowledged


def open_or_create(disk: SimulatedDisk) -> AuditLog:
    start = AuditLog.create if disk.read("checkpoint") is None else AuditLog.open
    return start(NOWHERE, scenario.signer(), clock=scenario.clock, disk=disk)


def stored_entries(disk: SimulatedDisk) -> list[Any]:
    lines, rest = split_lines(disk.read("log.jsonl") or b"")
    assert rest == b""
    return [decode_entry(line) for line in lines]


def check_recovered(disk: SimulatedDisk, acknowledged: list[bytes], directory: Path) -> None:
    """Every acknowledged entry is there, in its place, and at most one more; it goes on."""
    log = open_or_create(disk)
    entries = [entry for entry in stored_entries(disk) if entry.kind != "recovered"]
    assert [entry.digest for entry in entries[: len(acknowledged)]] == acknowledged
    assert len(entries) <= len(acknowledged) + 1
    if log.size == 0:
        log.append("genesis", scenario.genesis())
    log.append("report-exported", {"files": {}})
    disk.export(directory)
    vkey = scenario.signer().vkey
    verified = verify_log(directory, vkey=vkey, pinned=log.head, spend=None)
    assert verified.size == log.size
    leaves = [leaf_hash(entry.raw) for entry in stored_entries(disk)]
    for head in disk.heads:  # no two heads that were ever signed contradict each other
        stated = scenario.signer().verifier.open(head)
        assert stated.root == root_of(leaves[: stated.size])


def calls_of_a_whole_run() -> int:
    disk = SimulatedDisk()
    assert len(write_until_cut(disk)) == len(BODIES)
    return disk.calls


CALLS = calls_of_a_whole_run()


@pytest.mark.parametrize("names", ["persisted", "lost"])
@pytest.mark.parametrize("content", FATES)
def test_a_cut_at_any_call_loses_no_acknowledged_entry(
    content: Fate, names: Fate, tmp_path: Path
) -> None:
    assert CALLS >= 40
    for cut_at in range(1, CALLS + 1):
        disk = SimulatedDisk(cut_at=cut_at)
        acknowledged = write_until_cut(disk)
        check_recovered(disk.restart(content, names), acknowledged, tmp_path / str(cut_at))


@settings(max_examples=200)
@given(
    st.integers(1, CALLS),
    st.lists(st.tuples(st.sampled_from(FATES), st.sampled_from(FATES)), min_size=4, max_size=4),
    st.lists(st.integers(1, 8), min_size=3, max_size=3),
)
def test_cuts_during_recovery_lose_nothing_either(
    tmp_path_factory: pytest.TempPathFactory,
    cut_at: int,
    fates: list[tuple[Fate, Fate]],
    again: list[int],
) -> None:
    disk = SimulatedDisk(cut_at=cut_at)
    acknowledged = write_until_cut(disk)
    for (content, names), next_cut in zip(fates, again, strict=False):
        disk = disk.restart(content, names)
        disk.cut_at = next_cut
        try:
            open_or_create(disk)
        except PowerCut:
            continue
    check_recovered(disk.restart(*fates[-1]), acknowledged, tmp_path_factory.mktemp("log"))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_full_or_failing_disk_stops_the_writer_and_loses_nothing(
    error: int, tmp_path: Path
) -> None:
    for fail_at in range(1, CALLS + 1):
        disk = SimulatedDisk(fail_at=fail_at, error=error)
        acknowledged: list[bytes] = []
        log = None
        with pytest.raises(WriteFailed, match="not durable"):  # noqa: PT012
            log = AuditLog.create(NOWHERE, scenario.signer(), clock=scenario.clock, disk=disk)
            for kind, body in BODIES:
                last = acknowledged[-1] if acknowledged else b""
                acknowledged.append(log.append(kind, body(last)).digest)
        if log is not None:
            with pytest.raises(WriteFailed, match="open the log again"):
                log.append("report-exported", {"files": {}})
        check_recovered(disk.restart("persisted", "persisted"), acknowledged, tmp_path / "a")
        check_recovered(disk.restart("lost", "lost"), acknowledged, tmp_path / "b")


def test_what_was_adopted_and_dropped_is_recorded() -> None:
    disk = SimulatedDisk()
    write_until_cut(disk)
    whole = disk.names["log.jsonl"].content
    disk.names["log.jsonl"].content = whole + b'{"body":{"cov'
    open_or_create(disk)
    recovered = stored_entries(disk)[-1]
    assert recovered.kind == "recovered"
    assert (recovered.body.covered, recovered.body.adopted) == (5, [])
    assert recovered.body.dropped_bytes == 13
    # Now the head is lost instead: the last entry is whole, and only not covered yet.
    disk = SimulatedDisk()
    log = AuditLog.create(NOWHERE, scenario.signer(), clock=scenario.clock, disk=disk)
    log.append("genesis", scenario.genesis())
    head = log.head
    granted = log.append("budget-granted", scenario.grant())
    disk.names["checkpoint"].content = head
    open_or_create(disk)
    recovered = stored_entries(disk)[-1]
    assert recovered.body.adopted == [granted.digest.hex()]
    assert recovered.body.dropped_digest is None


def test_a_killed_process_loses_no_acknowledged_entry(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from audit.log import AuditLog
        from tests.audit import scenario
        directory = Path(sys.argv[1])
        start = AuditLog.open if directory.exists() else AuditLog.create
        log = start(directory, scenario.signer(), clock=scenario.clock)
        if log.size == 0:
            log.append("genesis", scenario.genesis())
        while True:
            done = log.append("report-exported", {"files": {}})
            sys.stdout.write(f"{done.index} {done.digest.hex()}\\n")
            sys.stdout.flush()
        """
    )
    root = Path(__file__).parents[2]
    acknowledged: dict[int, str] = {}
    for kill_after in (3, 11, 24):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "log")],
            cwd=root,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(kill_after):
            index, digest = process.stdout.readline().split()
            acknowledged[int(index)] = digest
        os.kill(process.pid, signal.SIGKILL)
        for line in process.stdout:
            if line.endswith("\n"):
                index, digest = line.split()
                acknowledged[int(index)] = digest
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    log = AuditLog.open(tmp_path / "log", scenario.signer(), clock=scenario.clock)
    log.close()
    lines, _ = split_lines((tmp_path / "log" / "log.jsonl").read_bytes())
    assert len(acknowledged) >= 38
    for number, expected in acknowledged.items():
        assert decode_entry(lines[number]).digest.hex() == expected
