"""The files that a run goes on from: read back as written, and refused where anything differs."""

from __future__ import annotations

import json
import stat
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from privacy.errors import LedgerError
from privacy.ledger import Ledger
from privacy.ledger_rows import Charged
from secure_fedmeta import state
from secure_fedmeta.checkpoint import FILE, NEXT, Checkpoint, Checkpoints
from secure_fedmeta.errors import NothingBegun, RunDirectoryError, StateError
from secure_fedmeta.kept import Facts, Kept
from secure_fedmeta.metrics import Mark, Metrics
from secure_fedmeta.server_opt import ServerOptimiser
from tests.privacy.ledgers import EVENT, grant, reserve

KEY = bytes(range(32))
FACTS = Facts(folder="/data", model="00" * 32, data="11" * 32, loss="mse")
SERVER = ServerOptimiser("adam", lr=0.1, average_from=1)


def checkpoint(**changes: Any) -> Checkpoint:
    state_ = SERVER.update(SERVER.init(torch.tensor([0.5, -1e-30])), torch.tensor([1.0, 3.0]))
    base: dict[str, Any] = {
        "run": bytes(32),
        "round": 3,
        "attempt": 2,
        "outcome": "released",
        "intent": "22" * 32,
        "model": "33" * 32,
        "state": state_,
        "clip": 0.1,
        "record": {"round": 3, "status": "released", "epsilon": 0.1 + 0.2, "protected": {}},
        "metrics": Mark(7, "44" * 32),
        "traffic": torch.tensor([[1, 2], [3, 4]]),
        "seconds": 1.25,
    }
    return Checkpoint(**{**base, **changes})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    tensors = (one.state.tensors(), other.state.tensors())
    return all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0]) and all(
        torch.equal(one.traffic, other.traffic)
        if field.name == "traffic"
        else getattr(one, field.name) == getattr(other, field.name)
        for field in fields(one)
        if field.name != "state"
    )


# --- the format -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"outcome": "aborted", "intent": None}, {"clip": 1e-300, "seconds": 0.0}]
)
def test_it_is_read_back_as_it_was_written(changes: dict[str, Any]) -> None:
    written = checkpoint(**changes)
    data = written.encode(KEY)
    assert same(Checkpoint.decode(data, KEY), written)
    assert checkpoint(**changes).encode(KEY) == data


DATA = checkpoint().encode(KEY)


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_no_flipped_byte_is_taken(position: int, flip: int) -> None:
    changed = DATA[:position] + bytes([DATA[position] ^ flip]) + DATA[position + 1 :]
    with pytest.raises(RunDirectoryError):
        Checkpoint.decode(changed, KEY)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    for each in (data, DATA[: len(data)], DATA + data[:1] + b"x", b"y" + data + DATA):
        with pytest.raises(RunDirectoryError):
            Checkpoint.decode(each, KEY)


def test_another_run_s_key_does_not_open_it() -> None:
    with pytest.raises(RunDirectoryError, match="damaged, or of another run"):
        Checkpoint.decode(DATA, bytes(32))


def rewritten(change: Any) -> bytes:
    """The same tensors under other facts, the old seal beside them."""
    length = int.from_bytes(DATA[:8], "little")
    facts = json.loads(json.loads(DATA[8 : 8 + length])["__metadata__"]["fedmeta-checkpoint"])
    change(facts)
    text = json.dumps(facts, sort_keys=True)
    return save_tensors(load_tensors(DATA), {"fedmeta-checkpoint": text})


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_named(version: object) -> None:
    data = rewritten(lambda facts: facts.update(version=version))
    with pytest.raises(RunDirectoryError, match="of another version; this release reads 1"):
        Checkpoint.decode(data, KEY)


@pytest.mark.parametrize("missing", ["run", "clip", "metrics", "record", "version"])
def test_a_fact_too_few_or_too_many_is_refused(missing: str) -> None:
    for change in (lambda facts: facts.pop(missing), lambda facts: facts.update(more=1)):
        with pytest.raises(RunDirectoryError):
            Checkpoint.decode(rewritten(change), KEY)


def test_what_is_put_counts_once_it_is_confirmed(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, KEY)
    assert files.current() is files.unconfirmed() is None
    first, second = checkpoint(), checkpoint(round=4)
    files.put(first)
    assert files.current() is None
    files.confirm()
    files.put(second)
    current, coming = files.current(), files.unconfirmed()
    assert current is not None
    assert coming is not None
    assert (current.round, coming.round) == (3, 4)
    files.discard()
    files.discard()
    assert files.unconfirmed() is None
    with pytest.raises(RunDirectoryError, match="is not durable"):
        files.confirm()
    Checkpoints.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_neither_name_shows_the_key(tmp_path: Path) -> None:
    assert repr(Checkpoints(tmp_path, KEY)) == f"Checkpoints('{tmp_path}', redacted)"
    kept = Kept.create("a", KEY, FACTS)
    assert repr(kept) == "Kept('a', redacted)"
    assert repr(kept.founding) == "Founding(redacted)"
    assert {FILE, NEXT} == {"checkpoint.safetensors", "checkpoint.next.safetensors"}


# --- what the state directory keeps ---------------------------------------------------------------


def test_a_run_is_kept_for_its_owner_alone() -> None:
    with Kept.create("a", KEY, FACTS) as kept:
        kept.ready()
        with pytest.raises(RunDirectoryError, match="another process runs it"):
            Kept.open("a")
    folder = state.runs_path("a")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    with Kept.open("a") as found:
        assert (found.facts, found.secret, found.attempts) == (FACTS, KEY, [])
    with Kept.open("a") as again:
        streams = [one.founding.stream("client/x")(16) for one in (found, again)]
    assert streams[0] == streams[1] != found.founding.stream("client/y")(16)
    assert found.seal_key not in (KEY, *streams)
    with pytest.raises(StateError, match="cannot be written"):
        Kept.create("a", KEY, FACTS)
    Kept.forget("a")
    Kept.forget("a")
    assert not folder.exists()


def test_attempts_are_kept_but_for_a_torn_one() -> None:
    with Kept.create("a", KEY, FACTS) as kept:
        kept.ready()
        for attempt in ((1, 1), (2, 1), (2, 2)):
            kept.begin(*attempt)
    path = state.runs_path("a") / "attempts"
    path.write_bytes(path.read_bytes() + b"3 1")
    with Kept.open("a") as again:
        assert again.attempts == [(1, 1), (2, 1), (2, 2)]
        assert path.read_bytes().endswith(b"3 1")  # reading changes nothing
        again.begin(3, 12)
    with Kept.open("a") as again:
        assert again.attempts == [(1, 1), (2, 1), (2, 2), (3, 12)]
    path.write_bytes(b"1 1\nx\n")
    for _ in range(2):  # the refusal gives the lock up
        with pytest.raises(StateError, match="is damaged at"):
            Kept.open("a")


def test_a_run_that_never_began_is_told_from_one_that_is_lost() -> None:
    kept = Kept.create("a", KEY, FACTS)
    with pytest.raises(NothingBegun, match="charged nothing"):
        Kept.check_begun("a")
    kept.ready()
    Kept.check_begun("a")
    Kept.check_begun("b")
    with pytest.raises(StateError, match="does not hold what run b kept"):
        Kept.open("b")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"version": 2, "folder": ""}', "of version 2; this release reads 1"),
        (b'{"version": 1, "folder": ""}', "of version 1"),
    ],
)
def test_facts_that_cannot_be_read(content: bytes, why: str) -> None:
    Kept.create("a", KEY, FACTS).ready()
    (state.runs_path("a") / "facts.json").write_bytes(content)
    with pytest.raises(StateError, match=why):
        Kept.open("a")


def test_a_secret_of_another_length() -> None:
    Kept.create("a", KEY, FACTS).ready()
    (state.runs_path("a") / "secret").write_bytes(KEY[:-1])
    with pytest.raises(StateError, match="restore it"):
        Kept.open("a")


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_go_on_behind_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics.create(path)
    first.append({"round": 1, "epsilon": 0.1 + 0.2})
    mark = first.mark
    first.append({"round": 2})
    path.write_bytes(path.read_bytes() + b'{"rou')
    second = Metrics.take_up(path, mark)
    assert second.mark == mark
    assert second.records == [{"round": 1, "epsilon": 0.1 + 0.2}]
    second.append({"round": 2, "again": True})
    assert [json.loads(line) for line in path.read_text().splitlines()] == second.records
    for wrong in (replace(mark, size=mark.size - 1), Mark(10**6, mark.digest)):
        with pytest.raises(RunDirectoryError, match="does not hold the rounds"):
            Metrics.take_up(path, wrong)
    with pytest.raises(RunDirectoryError, match="cannot be used"):
        Metrics.create(path)


# --- the ledger -----------------------------------------------------------------------------------


def test_the_ledger_tells_what_a_run_was_charged(tmp_path: Path) -> None:
    ledger = grant(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}"), epsilon=90.0)
    grant(ledger, population="q", epsilon=90.0)
    ledger.commit(reserve(ledger, 2))
    reserve(ledger, 2, attempt=2)
    reserve(ledger, 1, run="other")
    reserve(ledger, 7, population="q")
    assert ledger.attempts("r", "p") == {
        (2, 0): Charged(EVENT, opened=True),
        (2, 2): Charged(EVENT, opened=False),
    }
    assert ledger.attempts("r", "q") == {(7, 0): Charged(EVENT, opened=False)}
    assert ledger.attempts("none", "p") == {}
    (tmp_path / "ledger.sqlite").unlink()
    with pytest.raises(LedgerError, match="older copy"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}").attempts("r", "p")
