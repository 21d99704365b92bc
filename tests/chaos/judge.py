"""Comparing what killed processes had promised with what is left at the end.

Nothing here asks the product what it thinks that it did: entries, charges and metrics are read from
the files, budgets are added up by the accountant.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from privacy.accountant import spend
from privacy.ledger_rows import read_event
from secure_fedmeta.verification import verify_run
from tests.chaos.life import Life, run_directories
from tests.chaos.scenarios import CLIENTS_LEDGER, LEDGER, Scenario
from tests.chaos.witness import Message

FAULTS = {
    "lost_entries": "an acknowledged entry is not at its place in the log, or was not synced",
    "lost_charges": "a charge or an opened sum is missing from ledger or log",
    "lost_models": "a released model is not what the run went on from, or was not kept",
    "failed_resumes": "a run could not be resumed to the end that its budget allows",
    "failed_verifications": "the log of the run does not verify against its pin",
    "repeated": "an attempt, a turn or a protected vector was used twice",
    "unclear_errors": "a full disk was not told in one sentence that names a file and a remedy",
    "differing": "under a seed, the run is not the one that was never cut off",
}


@dataclass
class Findings:
    """What is wrong, counted by kind, and in words."""

    counts: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def add(self, fault: str, words: str) -> None:
        """One more of a kind."""
        if fault not in FAULTS:
            raise KeyError(fault)
        self.counts[fault] += 1
        self.words.append(f"{fault}: {words}")


@dataclass(frozen=True)
class Left:
    """What the processes of one run left on the disk.

    Attributes:
        directory: the run; of several, the last.
        lines: the log's entries as stored.
        before: entries of runs that were started again, since they had not begun.
        rows: every row of every ledger.
    """

    directory: Path
    lines: tuple[bytes, ...]
    before: frozenset[bytes]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The entries, parsed."""
        return [json.loads(line) for line in self.lines]

    def bodies(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of the entries of one kind."""
        return [entry["body"] for entry in self.entries if entry["kind"] == kind]


def read(place: Path) -> Left:
    """What a place holds; it must hold a run."""
    *before, directory = run_directories(place)
    rows = [row for name in (LEDGER, CLIENTS_LEDGER) for row in _rows(place / name)]
    old = frozenset(line for one in before for line in _lines(one))
    return Left(directory, _lines(directory), old, tuple(rows))


def _lines(directory: Path) -> tuple[bytes, ...]:
    log = directory / "audit" / "log.jsonl"
    return tuple(log.read_bytes().split(b"\n")[:-1]) if log.exists() else ()


def judge(scenario: Scenario, place: Path, lives: Sequence[Life], whole: Left | None) -> Findings:
    """Everything that is wrong with a run that was killed and resumed to its end.

    Args:
        scenario: what ran.
        place: where.
        lives: its processes, in order; the last one was left to end.
        whole: the same run, never cut off.
    """
    found = Findings()
    told = [message for life in lives for message in life.told]
    begun = max((at for at, one in enumerate(told) if one["what"] == "anew"), default=0)
    before, told = told[:begun], told[begun:]
    if not run_directories(place):
        found.add("failed_resumes", f"no run was made: {lives[-1].last}")
        return found
    left = read(place)
    _not_begun(before, left, found)
    _entries(told, left, found)
    _charges(scenario, told, left, found)
    _models(told, left, found)
    _repeats(scenario, told, found)
    if lives[-1].of("ended"):
        _ending(scenario, told, left, found)
        _figures(scenario, left, found)
        _verified(place, left, found)
    else:
        error = lives[-1].of("failed")
        words = f"{error[0]['type']}: {error[0]['error']}" if error else "it hung or fell silent"
        found.add("failed_resumes", words)
    if scenario.seeded and whole is not None:
        _same(left, whole, found)
    return found


def _not_begun(told: Sequence[Message], left: Left, found: Findings) -> None:
    """A run that had to be started again had computed, charged and opened nothing."""
    kept = {_digest(line) for line in left.before}
    for one in _of(told, "vector", "reserved", "authorised", "opened"):
        found.add("failed_resumes", f"it was begun ({one['what']}), and could not be resumed")
    for one in _of(told, "entry"):
        if one["digest"] not in kept:
            found.add("lost_entries", f"entry {one['index']} ({one['kind']}) is gone")


def _entries(told: Sequence[Message], left: Left, found: Findings) -> None:
    for one in _of(told, "entry"):
        index, kind = one["index"], one["kind"]
        if index >= len(left.lines) or _digest(left.lines[index]) != one["digest"]:
            found.add("lost_entries", f"entry {index} ({kind}) is gone")
        if one["unsynced"]:
            found.add("lost_entries", f"entry {index} ({kind}): {one['unsynced']} not synced")


def _charges(scenario: Scenario, told: Sequence[Message], left: Left, found: Findings) -> None:
    held = {row["id"]: row for row in left.rows}
    for one in _of(told, "reserved"):
        where = (one["run"], one["round"], one["attempt"])
        row = held.get(one["id"])
        if row is None or (row["run"], row["round"], row["attempt"]) != where:
            found.add("lost_charges", f"{one['who']} {where[1:]}: acknowledged, not in the ledger")
    for one in _of(told, "committed"):
        if held.get(one["id"], {}).get("committed") is None:
            found.add("lost_charges", f"{one['id']}: the note of its opening is gone")
    genesis = left.bodies("genesis")
    if not genesis:
        return
    run, population = genesis[0]["run"], _population(left)
    charged = {(row["round"], row["attempt"]) for row in left.rows if row["run"] == run}
    for one in _of(told, "authorised", "opened"):
        if (one["round"], one["attempt"]) not in charged:
            found.add("lost_charges", f"{one['what']} {one['round']}: never charged")
    log = _logged(left)
    ledger = Counter(_key(row["event"]) for row in left.rows if row["population"] == population)
    if _of(told, "ended") and log != ledger:
        found.add("lost_charges", f"the log states {log.total()}, the ledger {ledger.total()}")
    if scenario.own is not None:
        vectors = _of(told, "vector")
        asked = {(f"{run}/{one['client']}", one["round"], one["attempt"]) for one in vectors}
        own = {(row["run"], row["round"], row["attempt"]) for row in left.rows}
        for missing in sorted(asked - own):
            found.add("lost_charges", f"{missing} computed, not in the client's ledger")


def _models(told: Sequence[Message], left: Left, found: Findings) -> None:
    """Every round starts from the model of the release before it, whoever released it."""
    acknowledged = [one for one in _of(told, "entry") if one["model"]]
    released = {one["round"]: one["model"] for one in acknowledged}
    # A release may stand in the log whose writer was killed before it could say so.
    released |= {body["round"]: body["model_after"] for body in left.bodies("round-release")}
    for one in _of(told, "round"):
        before = [index for index in released if index < one["round"]]
        if before and one["model"] != released[max(before)]:
            found.add("lost_models", f"round {one['round']} started from another model")
    for one in acknowledged:
        kept = [path for path in one["unsynced"] if "checkpoint" in path.rpartition("/")[2]]
        if kept:
            found.add("lost_models", f"round {one['round']}: {kept} not synced")
    chain = left.bodies("round-release")
    for before, after in pairwise(chain):
        if before["model_after"] != after["model_before"]:
            found.add("lost_models", f"round {after['round']}: the log's models do not follow")


def _repeats(scenario: Scenario, told: Sequence[Message], found: Findings) -> None:
    begun = Counter((one["round"], one["attempt"]) for one in _of(told, "begun"))
    for (index, attempt), times in begun.items():
        if times > 1:
            found.add("repeated", f"round {index} attempt {attempt} was begun {times} times")
    for one in _of(told, "begun"):
        if kept := [path for path in one["unsynced"] if "/resume" in path]:
            found.add("repeated", f"round {one['round']}: begun before {kept} was synced")
    vectors = _of(told, "vector")
    if scenario.seeded:  # a round that is done again is the same one, bit for bit
        turns = Counter(client for client, _ in {(one["client"], one["round"]) for one in vectors})
    else:
        turns = Counter(one["client"] for one in vectors)
        for digest, times in Counter(one["digest"] for one in vectors).items():
            if times > 1:
                found.add("repeated", f"one protected vector {times} times: {digest}")
    most = scenario.parts().plan.turns
    for client, times in turns.items():
        if times > most:
            found.add("repeated", f"{client} contributed {times} times, its turns are {most}")


def _ending(scenario: Scenario, told: Sequence[Message], left: Left, found: Findings) -> None:
    """The run ended as its budget and its clients' turns say that it must."""
    status = _of(told, "ended")[-1]["status"]
    rounds = scenario.parts().config.training.rounds
    released = [body["round"] for body in left.bodies("round-release")]
    # An attempt that was noted is used up, even if its process ended before it opened the round.
    attempts: Counter[int] = Counter()
    for one in _of(told, "noting"):
        attempts[one["round"]] = max(attempts[one["round"]], one["attempt"])
    lost = attempts.total() - len(released)
    if status == "budget":
        if _room(scenario, left):
            found.add("failed_resumes", "it ended for its budget, which allows another round")
    elif len(released) < rounds and len(released) + lost < rounds:
        found.add("failed_resumes", f"{status} with {released} of {rounds} rounds, {lost} lost")
    elif status == "aborted" and released:
        found.add("failed_resumes", "it was aborted, although rounds were released")
    metrics = (left.directory / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in metrics]
    if [line["round"] for line in records if line["status"] == "released"] != released:
        found.add("failed_resumes", "metrics.jsonl and the log tell of other rounds")
    if len({line["round"] for line in records}) != len(records):
        found.add("failed_resumes", "metrics.jsonl tells of a round twice")


def _figures(scenario: Scenario, left: Left, found: Findings) -> None:
    """What is told of the spend is no less than what was charged comes to."""
    delta, population = scenario.parts().plan.delta, _population(left)
    charged = [row["event"] for row in left.rows if row["population"] == population]
    report = json.loads((left.directory / "report.json").read_text())
    if report["privacy"]["spent_epsilon"] < _worst(tuple(charged), delta) * (1 - 1e-9):
        found.add("lost_charges", "report.json tells of a lower epsilon than was charged")
    lines = (left.directory / "metrics.jsonl").read_text().splitlines()
    released = [one for one in map(json.loads, lines) if one["status"] == "released"]
    if not released:
        return
    entries = left.entries
    last = max(at for at, one in enumerate(entries) if one["kind"] == "round-release")
    until = tuple(_logged(replace(left, lines=left.lines[: last + 1])).elements())
    if released[-1]["epsilon"] < _worst(until, delta) * (1 - 1e-9):
        found.add("lost_charges", "metrics.jsonl tells of a lower epsilon than was charged")


@lru_cache(maxsize=64)
def _worst(events: tuple[str, ...], delta: float) -> float:
    return spend([read_event(event) for event in events], delta=delta).worst


def _verified(place: Path, left: Left, found: Findings) -> None:
    with mock.patch.dict(os.environ, FEDMETA_STATE_DIR=str(place / "state")):
        outcome = verify_run(left.directory, key=None, pinned=None, unpinned=False)
    if not outcome.accepted:
        found.add("failed_verifications", str(outcome.failure))
    elif outcome.verified is None or outcome.verified.trust != "pinned":
        found.add("failed_verifications", "nothing was pinned")
    elif len(left.bodies("report-exported")) != 1:
        found.add("failed_verifications", "the log does not name the report once")


def _same(left: Left, whole: Left, found: Findings) -> None:
    """Each released round is, number for number, the one of the run that was not cut off."""
    expected = {body["round"]: body for body in whole.bodies("round-release")}
    for body in left.bodies("round-release"):
        for name in ("model_before", "model_after", "aggregate"):
            if body["round"] in expected and body[name] != expected[body["round"]][name]:
                found.add("differing", f"round {body['round']}: {name}")
                break
    if len(left.bodies("round-release")) == len(expected):
        one, other = (run.directory / "model.safetensors" for run in (left, whole))
        if one.exists() and one.read_bytes() != other.read_bytes():
            found.add("differing", "the final model")


def _room(scenario: Scenario, left: Left) -> bool:
    """Whether another round would have been affordable, to the population and to the clients."""
    plan = scenario.parts().plan
    grants = [body for body in left.bodies("budget-granted") if body["adversary"] == "worst"]
    population = _population(left)
    events = [read_event(row["event"]) for row in left.rows if row["population"] == population]
    most = float(grants[-1]["epsilon"])
    if spend([*events, plan.worst_event()], delta=plan.delta).worst > most:
        return False
    if scenario.own is None:
        return True
    counts = Counter(row["population"] for row in left.rows)
    able = [name for name in counts if name != population and counts[name] < scenario.own]
    return len(able) >= plan.min_survivors


def _population(left: Left) -> str:
    return str(left.bodies("budget-granted")[0]["population"])


def _logged(left: Left) -> Counter[str]:
    """What the log states as charged: before the run, by intents, and by aborts without one."""
    charged: Counter[str] = Counter()
    for body in left.bodies("budget-spent"):
        for item in body["prior"]:
            charged[_key(item["event"])] += int(item["count"])
    for kind in ("round-intent", "round-abort"):
        charged.update(_key(body["event"]) for body in left.bodies(kind) if body.get("event"))
    return charged


def _key(event: object) -> str:
    return json.dumps(json.loads(event) if isinstance(event, str) else event, sort_keys=True)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with sqlite3.connect(path) as connection:  # a hot journal is rolled back, as by any reader
        connection.row_factory = sqlite3.Row
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name='reservations'").fetchone():
            yield from map(dict, connection.execute("SELECT * FROM reservations"))
    connection.close()


def _of(told: Sequence[Message], *what: str) -> list[Message]:
    return [message for message in told if message["what"] in what]


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
