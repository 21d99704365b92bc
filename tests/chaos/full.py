"""Disks that are full, at every call that needs room and for real.

The first process runs the command line until its disk is full; the second one, which finds room
again, resumes the run. What the first one said must tell a person which file and what to do.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from secure_fedmeta import cli
from secure_fedmeta.results import read_report
from tests.chaos.judge import FAULTS, Findings, judge
from tests.chaos.life import OUTPUT, Act, Ending, Full, Life, live, run_directories
from tests.chaos.scenarios import Scenario
from tests.chaos.witness import Witness

CONFIG = "config.toml"
PAGE = 4096
BALLAST = "ballast"
_UNNAMED = re.compile(r"\d{8}-\d{6}-[\w-]+|[0-9a-f]{16,}|\.[0-9a-f]{6,}")
Said = Callable[[str], None]


class FullDisks:
    """Runs one scenario from the command line on disks that become full.

    Args:
        folder: an empty folder to run in.
        scenario: what to run; its ledgers are on the same disk.
        announce: told one line per run.
    """

    def __init__(self, folder: Path, scenario: Scenario, announce: Said = lambda _: None) -> None:
        self._folder = folder
        self._scenario = scenario
        self._announce = announce
        self._number = 0
        self.findings = Findings()
        self.filled = 0

    def to_json(self) -> dict[str, Any]:
        """What was found, as plain JSON."""
        counts = self.findings.counts
        return {
            "filled": self.filled,
            **{name: counts[name] for name in FAULTS},
            "faults": self.findings.words[:20],
        }

    def sites(self) -> list[tuple[str, str]]:
        """Name and path of each call of a whole run that needs room."""
        place = self._place()
        life = live(place, command(self._scenario, place))
        (points,) = life.of("points")
        if not life.of("ended"):
            raise RuntimeError(f"{self._scenario.name} does not run: {_output(place)}")
        shutil.rmtree(place)
        return [(name, str(path)) for name, path in points["needing_room"]]

    def at_calls(self, most: int, seed: int) -> None:
        """Have no room from a call on, for so many different calls at most.

        Calls that do the same to the same file count as one; the rest are drawn by the seed.
        """
        sites = self.sites()
        kinds: dict[tuple[str, str], list[int]] = {}
        for point, (name, path) in enumerate(sites, start=1):
            kinds.setdefault((name, _UNNAMED.sub("*", path)), []).append(point)
        rng = random.Random(seed)
        drawn = [rng.choice(points) for points in kinds.values()]
        rest = sorted(set(range(1, len(sites) + 1)) - set(drawn))
        if len(drawn) > most:
            chosen = rng.sample(drawn, most)
        else:
            chosen = drawn + rng.sample(rest, min(len(rest), most - len(drawn)))
        for point in sorted(chosen):
            name, path = sites[point - 1]
            self._run(Full(point), f"no room from {name} of {Path(path).name} on (call {point})")

    def with_pages(self, pages: Sequence[float]) -> None:
        """Have so much room on a disk that is really that small, as parts of what a run takes."""
        before = _free(self._folder)
        place = self._place()
        live(place, command(self._scenario, place))
        taken = before - _free(self._folder)
        shutil.rmtree(place)
        for part in pages:
            room = int(part * taken)
            self._run(None, f"room for {room} of {taken} pages", room=room)

    def _place(self) -> Path:
        self._number += 1
        place = self._folder / f"full-{self._number}"
        self._scenario.prepare(place)
        (place / CONFIG).write_text(self._scenario.config(place).to_toml())
        (place / OUTPUT).write_bytes(b" " * PAGE)  # words of a full disk must still find room
        return place

    def _run(self, ending: Ending, words: str, *, room: int | None = None) -> None:
        place = self._place()
        ballast = self._folder / BALLAST
        if room is not None:
            _fill(ballast, _free(self._folder) - room)
        first = live(place, command(self._scenario, place), ending=ending)
        said = _output(place)
        ballast.unlink(missing_ok=True)
        lives = [first]
        if not first.of("ended"):
            lives.append(live(place, command(self._scenario, place)))
        found = judge(self._scenario, place, lives, None)
        self._check_words(first, said, place, found)
        self.filled += not first.of("ended")
        self.findings.counts.update(found.counts)
        self.findings.words += [f"{words}: {one}" for one in found.words]
        self._announce(f"{words}: {'; '.join(found.words) or said.strip() or 'it completed'}")
        if not found.counts:
            shutil.rmtree(place)

    def _check_words(self, first: Life, said: str, place: Path, found: Findings) -> None:
        """One sentence, that names a file and says what to do, and a fitting exit code."""
        if first.of("ended"):
            return
        code = [one["code"] for one in first.of("exit")]
        lines = [line for line in said.splitlines() if line.startswith("fedmeta: ")]
        if code not in ([2], [3]):
            found.add("unclear_errors", f"exit code {code}: {said.strip()[-200:]}")
        elif "Traceback" in said or len(lines) != 1:
            found.add("unclear_errors", f"not one sentence: {said.strip()[-200:]}")
        elif str(place) not in lines[0]:
            found.add("unclear_errors", f"no file is named: {lines[0]}")
        elif not re.search(r"make room", lines[0]):
            found.add("unclear_errors", f"what to do is not said: {lines[0]}")


def command(scenario: Scenario, place: Path) -> Act:
    """`fedmeta run` of a place's config; `fedmeta run --resume` where there is a run."""

    def act(witness: Witness) -> None:
        with scenario.drawing():
            _call(place, witness)

    return act


def _call(place: Path, witness: Witness) -> None:
    found = run_directories(place)
    witness.tell("started", resumes=bool(found))
    code = (
        _fedmeta("run", "--resume", str(found[-1]), "--progress", "quiet")
        if found
        else _anew(place)
    )
    if found and code == cli.BAD_INPUT:
        said = (place / OUTPUT).read_text()
        if "nothing is left to resume" in said:  # all but a head, a pin or a link was there
            code = cli.OK
        elif "again with fedmeta run" in said or "start it again" in said:
            witness.tell("anew")
            code = _anew(place)
    witness.tell("exit", code=code)
    found = run_directories(place)
    if found and (found[-1] / "report.json").exists() and code in (cli.OK, cli.CHECK_FAILED):
        witness.tell("ended", status=read_report(found[-1])["status"])


def _anew(place: Path) -> int:
    out = place / f"runs-{len(list(place.glob('runs-*')))}"
    return _fedmeta("run", str(place / CONFIG), "--out", str(out), "--progress", "quiet")


def _fedmeta(*words: str) -> int:
    """The command line in this process; its exit code."""
    sys.argv = ["fedmeta", *words]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _output(place: Path) -> str:
    return (place / OUTPUT).read_text().rstrip(" ")


def _free(folder: Path) -> int:
    """Free pages of the disk of a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize // PAGE


def _fill(path: Path, pages: int) -> None:
    with path.open("wb") as file:
        for _ in range(max(0, pages)):
            file.write(bytes(PAGE))
