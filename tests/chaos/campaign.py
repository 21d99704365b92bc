"""Many runs, each killed once or several times in a row at moments that follow from one seed."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from secure_fedmeta import training
from tests.chaos.judge import FAULTS, Findings, Left, judge, read
from tests.chaos.life import AtCall, AtTime, Ending, Life, Plant, live, run_or_resume
from tests.chaos.scenarios import SCENARIOS, Scenario

CHAIN = (1, 1, 1, 2, 2, 3)
"""How often in a row one run is killed, before a process is left to end."""


@dataclass
class Reference:
    """A run that nothing cut off: what it left, how long it takes, how many points it has.

    Attributes:
        sites: name and path of each call that needs room on the disk.
    """

    left: Left
    seconds: float
    points: int
    sites: Sequence[tuple[str, str]]


@dataclass
class Tally:
    """What a campaign found.

    Attributes:
        kills: processes that SIGKILL ended.
        runs: runs that were killed at least once.
        where: kills by the stage that the run was in.
        how: kills by kind of moment.
        counts: faults by kind.
        words: each fault in words, with the number of its run.
    """

    kills: int = 0
    runs: int = 0
    resumed: int = 0
    where: Counter[str] = field(default_factory=Counter)
    how: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def add(self, scenario: Scenario, lives: Sequence[Life], label: str, found: Findings) -> None:
        """Count one run."""
        killed = [stage_of(life) for life in lives if life.killed]
        self.kills += len(killed)
        self.runs += bool(killed)
        self.resumed += any(told["resumes"] for told in lives[-1].of("started"))
        self.where.update(killed)
        self.counts.update(found.counts)
        self.words += [f"run {label} ({scenario.name}): {words}" for words in found.words]

    def to_json(self) -> dict[str, Any]:
        """The tally as plain JSON."""
        return {
            "kills": self.kills,
            "runs": self.runs,
            "resumed": self.resumed,
            **{name: self.counts[name] for name in FAULTS},
            "where": dict(self.where.most_common()),
            "how": dict(self.how),
            "faults": self.words[:20],
        }


class Campaign:
    """Kills runs and counts what was lost.

    Args:
        folder: an empty folder to run in.
        seed: of every moment and every choice.
        scenarios: what to run; drawn by weight.
        announce: told one line per run.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        scenarios: tuple[Scenario, ...] = tuple(SCENARIOS.values()),
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        torch.set_num_threads(1)  # a fork takes along no threads but the one that forks
        self._folder = folder
        self._seed = seed
        self._scenarios = scenarios
        self._announce = announce
        self._references: dict[str, Reference] = {}
        self.tally = Tally()

    def kill(self, times: int) -> Tally:
        """Kill run after run until so many processes were killed."""
        number = 0
        while self.tally.kills < times:
            number += 1
            self.one(number, at_most=times - self.tally.kills)
        return self.tally

    def one(self, number: int, *, at_most: int = max(CHAIN)) -> Findings:
        """Run number n: the same scenario and moments for the same seed.

        Moments in time fall where the machine is by then; points at the disk are exact.
        """
        scenario, moments = draw(self._scenarios, self._seed, number)
        reference = self.reference(scenario)
        kills = [_kill(reference, *moment) for moment in moments[:at_most]]
        return self.strike(scenario, kills, str(number), tally=self.tally)

    def strike(
        self,
        scenario: Scenario,
        kills: Sequence[Ending],
        label: str,
        *,
        plant: Plant = nullcontext,
        tally: Tally | None = None,
    ) -> Findings:
        """Run it, kill each process in its turn, leave the last one to end, and judge.

        Args:
            scenario: what to run.
            kills: when, for one process after the other.
            label: names its folder.
            plant: a bug, put around every process.
            tally: counts it; None: nothing does.
        """
        reference = self.reference(scenario)
        place = self._folder / f"run-{label}"
        scenario.prepare(place)
        lives: list[Life] = []
        for ending in [*kills, None]:
            act = run_or_resume(scenario, place)
            life = live(place, act, ending=ending, plant=plant)
            lives.append(life)
            if not life.killed:
                if len(lives) == 1:  # a whole run, and a quicker one than was thought
                    reference.seconds = min(reference.seconds, life.seconds)
                break
        found = judge(scenario, place, lives, reference.left)
        killed = [stage_of(life) for life in lives if life.killed]
        if tally is not None:
            tally.add(scenario, lives, label, found)
            tally.how.update(type(ending).__name__ for ending in kills[: len(killed)])
        where = ", ".join(killed) or "not killed"
        faults = "; ".join(found.words) or "nothing lost"
        self._announce(f"run {label} {scenario.name}: {where}: {faults}")
        if not found.counts:
            shutil.rmtree(place)
        return found

    def reference(self, scenario: Scenario) -> Reference:
        """The run that is never killed; made once."""
        if scenario.name not in self._references:
            self.warm(scenario)
            place = self._folder / f"whole-{scenario.name}"
            scenario.prepare(place)
            life = live(place, run_or_resume(scenario, place))
            if not life.of("ended"):
                raise RuntimeError(f"{scenario.name} does not run: {life.last}")
            (points,) = life.of("points")
            reference = Reference(read(place), life.seconds, points["disk"], points["needing_room"])
            self._references[scenario.name] = reference
        return self._references[scenario.name]

    def warm(self, scenario: Scenario) -> None:
        """Run it in this process, so that children find modules, fonts and calibrations ready.

        Not where SEAL would start threads: a fork has none of them.
        """
        place = self._folder / f"warm-{scenario.name}"
        if scenario.encrypts or place.exists():
            return
        scenario.prepare(place)
        state = mock.patch.dict(os.environ, FEDMETA_STATE_DIR=str(place / "state"))
        with state, scenario.drawing():
            training.run(scenario.config(place), out=place / "runs-0")


def draw(
    scenarios: Sequence[Scenario], seed: int, number: int
) -> tuple[Scenario, list[tuple[bool, float]]]:
    """Scenario of run n, and of each kill whether it is at a moment in time, and where in 0 to 1.

    They follow from seed and number, and not from how the runs before went.
    """
    rng = random.Random(f"{seed}/{number}")
    (scenario,) = rng.choices(scenarios, [one.weight for one in scenarios])
    return scenario, [(rng.random() < 0.5, rng.random()) for _ in range(rng.choice(CHAIN))]


def _kill(reference: Reference, by_time: bool, part: float) -> AtTime | AtCall:
    if by_time:
        return AtTime(part * reference.seconds)
    return AtCall(1 + int(part * reference.points))


_STAGES = {
    "started": "before the log",
    "round": "before a round's messages",
    "begun": "among a round's messages",
    "vector": "among a round's messages",
    "reserved": "after a charge",
    "authorised": "while opening a sum",
    "opened": "after opening a sum",
    "committed": "before a release",
    "genesis": "among the first entries",
    "budget-granted": "among the first entries",
    "budget-spent": "among the first entries",
    "round-intent": "after an intent",
    "round-abort": "after an abort",
    "round-release": "after a release",
    "report-exported": "after the report",
    "recovered": "while resuming",
    "resumed": "while resuming",
    "scoring": "while scoring and reporting",
    "ended": "at the end",
}


def stage_of(life: Life) -> str:
    """Where a process was when it was killed, by what it had told last."""
    stage = "before it told anything"
    for told in life.told:
        what = told["kind"] if told["what"] == "entry" else told["what"]
        if what == "started" and told["resumes"]:
            stage = "while resuming"
        elif what == "stage" and stage in ("after a release", "after an abort"):
            stage = _STAGES["scoring"]
        elif what in _STAGES:
            stage = _STAGES[what]
    return stage
