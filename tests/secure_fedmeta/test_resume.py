"""Going on with a run that was cut off: what is restored, drawn anew, told."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secure_fedmeta.run_log
from crypto.secure_sum import SECURE_SUMS
from privacy.ledger import Ledger
from secure_fedmeta import state
from secure_fedmeta.progress import Silent, Started
from secure_fedmeta.resumption import Found
from secure_fedmeta.training import resume, run
from secure_fedmeta.verification import verify_run
from tests.contracts.test_local_noise import LOCAL
from tests.secure_fedmeta.cuts import (
    Killed,
    Mortal,
    charged,
    check_resumed,
    cut_before,
    mortal,
    short,
    told,
)
from tests.secure_fedmeta.federation import CLIENTS, SpySum, entries
from tests.secure_fedmeta.test_turns import TURNS

__all__ = ["mortal"]


def kinds(directory: Path) -> list[str]:
    return [entry["kind"] for entry in entries(directory / "audit")]


def bodies(directory: Path, kind: str) -> list[dict[str, Any]]:
    return [e["body"] for e in entries(directory / "audit") if e["kind"] == kind]


# --- what is drawn anew ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 4], ids=["private", "seeded"])
def test_a_round_is_done_again_with_other_noise_unless_it_is_seeded(
    tmp_path: Path, mortal: Mortal, monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    changes = {} if seed is None else {"not_private.seed": seed}
    spy = SpySum(SECURE_SUMS["masking"])
    monkeypatch.setitem(SECURE_SUMS, "masking", spy)
    config = short(
        {**changes, "training.rounds": 3, "name": "spied"}
    )  # parts of its own, which have the spy
    directory = cut_before(mortal, config, tmp_path, "Checkpoints.put", nth=2)
    first = {index: vector for index, vector in spy.vectors.items() if index[0] == 2}
    spy.vectors.clear()
    result = resume(directory)
    check_resumed(result, mortal)
    assert set(first) == {(2, 1, client) for client in range(1, CLIENTS + 1)}
    for (_, _, client), vector in first.items():
        again = spy.vectors[2, 2, client]
        assert np.array_equal(vector, again) == (seed is not None)


def test_the_parties_are_the_same_and_nothing_kept_gives_their_noise(
    tmp_path: Path, mortal: Mortal
) -> None:
    directory = cut_before(mortal, short(), tmp_path, "Ledger.reserve")
    folder = state.runs_path(directory.name)
    assert {path.name for path in folder.iterdir()} == {"secret", "facts.json", "attempts"}
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "secret")] == [0o700, 0o600]
    copy = tmp_path / "copy"
    shutil.copytree(state.state_directory(), copy)
    shutil.copytree(directory, tmp_path / "again" / directory.name)
    first = resume(directory)
    home = state.state_directory()
    shutil.rmtree(home)
    shutil.copytree(copy, home)
    second = resume(tmp_path / "again" / directory.name)
    rosters = {bodies(r.directory, "genesis")[0]["roster_digest"] for r in (first, second)}
    assert len(rosters) == 1
    sums = [[b["aggregate"] for b in bodies(r.directory, "round-release")] for r in (first, second)]
    assert not set(sums[0]) & set(sums[1])


# --- other kinds of runs --------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["Ledger.reserve", "AuditLog.append", "Checkpoints.confirm"])
def test_noise_at_the_client_is_charged_before_and_stays_charged(
    tmp_path: Path, mortal: Mortal, step: str
) -> None:
    config = short({**LOCAL, "privacy.rate": 1.0, "training.rounds": 3})
    nth = {"Ledger.reserve": 2, "AuditLog.append": 5, "Checkpoints.confirm": 2}[step]
    directory = cut_before(mortal, config, tmp_path, step, nth=nth)
    before = charged(directory).total()
    result = resume(directory)
    found = check_resumed(result, mortal)
    assert before == {"Ledger.reserve": 1}.get(step, 2)
    left = 1 if step == "AuditLog.append" else 0
    assert (
        sorted(found.released)
        == {
            "Ledger.reserve": [(1, 1), (2, 2)],  # a turn was used up, and no charge
            "AuditLog.append": [(1, 1), (2, 2)],
            "Checkpoints.confirm": [(1, 1), (2, 1), (3, 1)],
        }[step]
    )
    events = [body["event"] for body in bodies(directory, "round-abort")]
    assert len(events) == left
    assert all(event["kind"] == "gaussian_steps" for event in events)


@pytest.mark.parametrize("protocol", ["he", "threshold"])
def test_officers_go_on_too(tmp_path: Path, mortal: Mortal, protocol: str) -> None:
    config = short({"secure_sum.protocol": protocol, "privacy.max_colluders": 0})
    directory = cut_before(mortal, config, tmp_path, "Checkpoints.confirm")
    result = resume(directory)
    assert len(check_resumed(result, mortal).released) == 2


def test_clients_count_their_turns_over_the_cut(tmp_path: Path, mortal: Mortal) -> None:
    """Round 1 is begun twice: its clients have had two turns, and are not asked a third time."""
    config = short({**TURNS, "data.options.held_out_clients": 1})
    directory = cut_before(mortal, config, tmp_path, "Ledger.reserve")
    result = resume(directory)
    found = check_resumed(result, mortal)
    assert sorted(found.released) == [(1, 2), (2, 1), (4, 1)]
    assert any("round 3 was not run" in note for note in result.report["notes"])
    assert result.status == "completed"


def test_a_plan_without_turns_has_as_many_attempts_as_rounds(
    tmp_path: Path, mortal: Mortal
) -> None:
    """An attempt that was charged nothing, and may have shown nothing, is a contribution, too."""
    directory = cut_before(mortal, short(), tmp_path, "Ledger.reserve")
    result = resume(directory)
    assert sorted(check_resumed(result, mortal).released) == [(1, 2)]
    assert charged(directory).total() == 1
    assert "was not charged" in result.report["notes"][0]
    assert "round 2 was not run" in result.report["notes"][1]


def test_the_clients_own_ledgers_are_charged_for_both_attempts(
    tmp_path: Path, mortal: Mortal
) -> None:
    url = f"sqlite:///{tmp_path / 'clients.sqlite'}"
    config = short({"ledger.client_url": url})
    ledger = Ledger(url)
    names = [f"sinusoid/client-{index:03}" for index in range(CLIENTS)]
    for name in names:
        ledger.grant(name, unit="task", epsilon=90.0, delta=1e-5, approver="x")  # type: ignore[arg-type]
    directory = cut_before(mortal, config, tmp_path, "Ledger.commit")
    before = [len(ledger.events(name)) for name in names]
    result = resume(directory)
    rounds = len(check_resumed(result, mortal).released)
    assert [len(ledger.events(name)) for name in names] == [count + rounds for count in before]


def test_a_run_of_many_cuts(tmp_path: Path, mortal: Mortal) -> None:
    """Cut, resumed, cut in the resumption, and so on: entries and charges only grow."""
    config = short({"training.rounds": 6})
    directory = cut_before(mortal, config, tmp_path, "AuditLog.append", nth=6)
    for dies_at in (1, 2, 3, 4, 5, 14, 3, 20, 6):
        mortal.born(dies_at)
        with pytest.raises(Killed):
            resume(directory)
        assert told(directory).charged.total() <= charged(directory).total()
    mortal.born()
    result = resume(directory)
    found = check_resumed(result, mortal)
    assert result.status == "completed"
    assert kinds(directory).count("resumed") >= 4
    assert len(found.released) >= 3


def test_death_at_every_step_of_a_resumption(tmp_path: Path, mortal: Mortal) -> None:
    """With an open intent, so that there is something to settle."""
    config = short({"training.rounds": 3})
    directory = cut_before(mortal, config, tmp_path, "Checkpoints.put", nth=2)
    home = state.state_directory()
    shutil.copytree(home, tmp_path / "state copy")
    shutil.copytree(directory, tmp_path / "directory copy")
    mortal.born()
    resume(directory)
    upto = mortal.steps.index("Kept.begin") + 1
    assert mortal.steps[:upto].count("AuditLog.append") == 2
    for dies_at in range(1, upto + 1):
        for path, copy in ((home, "state copy"), (directory, "directory copy")):
            shutil.rmtree(path)
            shutil.copytree(tmp_path / copy, path)
        mortal.acknowledged.clear()
        mortal.born(dies_at)
        with pytest.raises(Killed):
            resume(directory)
        mortal.born()
        result = resume(directory)
        assert sorted(check_resumed(result, mortal).released) == [(1, 1), (2, 2)]
        assert kinds(directory).count("round-abort") == 1


class Stop(Silent):
    """Interrupts at the end of a round."""

    def __init__(self, index: int) -> None:
        self.index = index

    def round_done(self, record: Mapping[str, Any]) -> None:
        if record["round"] == self.index:
            raise KeyboardInterrupt


def test_ctrl_c_between_two_rounds_costs_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(short({"training.rounds": 3}), out=tmp_path, progress=Stop(1))
    (directory,) = tmp_path.glob("*-tiny-*")
    assert verify_run(directory, key=None, pinned=None, unpinned=False).accepted
    found: list[Found] = []
    result = resume(directory, tell=found.append)
    assert sorted(check_resumed(result, Mortal()).released) == [(1, 1), (2, 1), (3, 1)]
    assert result.report["notes"] == []
    assert "no attempt was cut off" in list(found[0].lines())


def test_a_stop_on_abort_is_remembered(tmp_path: Path, mortal: Mortal) -> None:
    """The run had ended when it was cut off: what is left is to say so."""
    changes = {"transport.drop": 0.999999999, "training.on_abort": "stop"}
    directory = cut_before(mortal, short(changes), tmp_path, "Checkpoints.confirm")
    result = resume(directory)
    check_resumed(result, mortal)
    assert result.status == "aborted"
    assert [record["round"] for record in result.records] == [1]
    assert "advertise: sum aborted" in result.records[0]["reason"]


def test_aborted_rounds_are_not_done_again(tmp_path: Path, mortal: Mortal) -> None:
    config = short({"transport.drop": 0.999999999, "training.rounds": 3})
    directory = cut_before(mortal, config, tmp_path, "Checkpoints.confirm", nth=2)
    result = resume(directory)
    check_resumed(result, mortal)
    assert [record["round"] for record in result.records] == [1, 2, 3]
    assert kinds(directory).count("round-abort") == 3


# --- what is told ---------------------------------------------------------------------------------


def test_what_was_found_is_told_and_logged(tmp_path: Path, mortal: Mortal) -> None:
    config = short({"training.rounds": 3})
    directory = cut_before(mortal, config, tmp_path, "Ledger.commit", nth=2)
    found: list[Found] = []
    result = resume(directory, tell=found.append)
    lines = "\n".join(found[0].lines())
    assert "5 log entries, checked against the pin" in lines
    assert "1 of 3 rounds released, 0 aborted" in lines
    assert "attempt 1 at round 2 was cut off; it stays charged" in lines
    assert "goes on with round 2, attempt 2" in lines
    spent = result.records[0]["epsilon"]  # and round 2 is charged, too
    figure = float(re.search(r"budget: ([\d.]+) of epsilon 3 granted to run/", lines)[1])  # type: ignore[index]
    assert spent < figure <= 3.0
    assert "room for 1 more round" in lines
    (body,) = bodies(directory, "resumed")
    assert (body["round"], body["attempt"], body["entries"]) == (2, 2, 5)
    (genesis,) = bodies(directory, "genesis")
    assert all(body[name] == genesis[name] for name in ("code_digest", "product_version"))


def test_another_version_is_told_and_logged(
    tmp_path: Path, mortal: Mortal, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = cut_before(mortal, short(), tmp_path, "Ledger.commit", nth=2)
    monkeypatch.setattr(secure_fedmeta.run_log, "__version__", "9.9.9")
    monkeypatch.setattr("secure_fedmeta.resumption.__version__", "9.9.9")
    found: list[Found] = []
    resume(directory, tell=found.append)
    assert any("goes on with 9.9.9; it is logged" in line for line in found[0].lines())
    assert bodies(directory, "resumed")[0]["product_version"] == "9.9.9"


def test_a_run_that_was_cut_off_verifies_and_says_so(tmp_path: Path, mortal: Mortal) -> None:
    directory = cut_before(mortal, short(), tmp_path, "Ledger.commit", nth=2)
    outcome = verify_run(directory, key=None, pinned=None, unpinned=False)
    assert outcome.accepted
    text = "\n".join(outcome.lines())
    assert "round 2 is charged and has no outcome" in text
    assert "has not ended: it runs, or was cut off" in text
    resume(directory)
    text = "\n".join(verify_run(directory, key=None, pinned=None, unpinned=False).lines())
    assert "resumed 1 time" in text
    assert "has not ended" not in text


class Watching:
    """An instrument that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def check(self, info: object) -> None: ...

    def resumed(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.told += [("before", record["round"]) for record in records]

    @contextmanager
    def watching(self, directory: Path) -> Iterator[None]:
        yield

    def round_done(self, record: Mapping[str, Any]) -> None:
        self.told.append(("now", record["round"]))

    def finished(self, report: Mapping[str, Any]) -> None: ...

    def lines(self) -> list[str]:
        return []


def test_instruments_and_progress_hear_of_each_round_once(tmp_path: Path, mortal: Mortal) -> None:
    """The second round had ended, and its line was not written."""
    config = short({"training.rounds": 3})
    directory = cut_before(mortal, config, tmp_path, "Checkpoints.confirm", nth=2)
    watching, seen = Watching(), Seen()
    resume(directory, instruments=[watching], progress=seen)
    assert watching.told == [("before", 1), ("now", 2), ("now", 3)]
    assert seen.told == watching.told


class Seen(Silent):
    """Notes which rounds were told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def started(self, facts: Started) -> None:
        self.told += [("before", record["round"]) for record in facts.records]

    def round_done(self, record: Mapping[str, Any]) -> None:
        self.told.append(("now", record["round"]))
