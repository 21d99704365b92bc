"""Mutation testing: change the code in one place, run its tests, list the changes nobody notices.

The score is killed / run: survivors that are equivalent count against it too. Each survivor must
have a reason in tests/mutants.toml; the table is docs/mutants.md. Mutants are made by
mutation_sites and run by mutation_runs. Cosmic Ray's own runner is not used: it changes files in
the working tree, one after the other, and starts Python and all libraries again for each.

    python scripts/mutants.py [--sample N] [--module crypto/ring.py ...] [--fresh] [--write]

Of a sample the page states a 95 % confidence interval of the score that all mutants would have.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib
import math
import os
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mutation_runs import LIBRARIES, Runner, Target, digest
from mutation_sites import ROOT, Mutant, mutants_of

PLAN: Final = ROOT / "tests" / "mutants.toml"
TABLE: Final = ROOT / "docs" / "mutants.md"
LEAST_SCORE: Final = 85.0
_NORMAL_95: Final = 1.959964  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class Reason:
    """Why survivors may live: on this line (whatever the change), or for this change alone."""

    module: str
    where: str
    before: str
    after: str | None
    reason: str

    def covers(self, mutant: Mutant) -> bool:
        """Whether this speaks of the mutant."""
        return (self.module, self.where, self.before) == (
            mutant.module,
            mutant.where,
            mutant.before,
        ) and self.after in (None, mutant.after)


def read_plan() -> tuple[list[Target], list[Reason]]:
    """Modules with their tests, and the reasons given for survivors."""
    plan = tomllib.loads(PLAN.read_text())
    targets = [Target(row["module"], tuple(row["tests"])) for row in plan["target"]]
    reasons = [
        Reason(row["module"], row["where"], row["before"], row.get("after"), row["reason"])
        for row in plan.get("survivor", ())
    ]
    return targets, reasons


@dataclass(frozen=True)
class Found:
    """What is known about the mutants of a module.

    Attributes:
        module: path from the root.
        mutants: how many there are.
        outcomes: of those that were run.
    """

    module: str
    mutants: int
    outcomes: Mapping[Mutant, str]

    @property
    def killed(self) -> int:
        """Mutants that a test noticed, or that did not come to an end."""
        return sum(outcome != "survived" for outcome in self.outcomes.values())

    @property
    def survivors(self) -> list[Mutant]:
        """Mutants that no test noticed, in the order of their lines."""
        alive = [mutant for mutant, outcome in self.outcomes.items() if outcome == "survived"]
        return sorted(alive, key=lambda mutant: mutant.line)

    @property
    def score(self) -> float:
        """Killed of those that were run, in percent."""
        return 100 * self.killed / len(self.outcomes)

    @property
    def bounds(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the score of all mutants, percent; the score if all were run.

        That a sample is drawn without replacement is left out, which makes it wider.
        """
        count, square = len(self.outcomes), _NORMAL_95**2
        if count == self.mutants:
            return self.score, self.score
        share = self.killed / count
        centre = (share + square / (2 * count)) / (1 + square / count)
        spread = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
        half = _NORMAL_95 * spread / (1 + square / count)
        return 100 * (centre - half), 100 * (centre + half)

    @property
    def interval(self) -> str:
        """The bounds in words; "all" if all were run."""
        low, high = self.bounds
        return "all" if len(self.outcomes) == self.mutants else f"{low:.0f} to {high:.0f} %"

    @property
    def version(self) -> str:
        """First digits of the module's SHA-256: whether the page speaks of it still."""
        return hashlib.sha256((ROOT / self.module).read_bytes()).hexdigest()[:12]


HEAD: Final = """# Mutation testing

`make mutants` changes modules in one place at a time and runs their tests on each change. Here is
what no test noticed, and why each of these changes may live. How it works is in
`scripts/mutants.py`; which tests belong to which module, and the reasons, are in
`tests/mutants.toml`.

- `make mutants` takes ten of each module, the same every time for the same code: some minutes on
  two idle cores. It does not change this page.
- `make mutants MUTANTS=60` takes sixty of each.
- `make mutants MUTANTS=all` takes all of them, which is hours, and writes this page. Outcomes are
  kept under `build/` while a module and its tests are the same, so that a run that was stopped goes
  on where it was.

The score is killed / run. Equivalent mutants are not taken out, so it is a lower bound. Less than
{least:.0f} % for any module, or a survivor without a reason, fails the run. Where fewer were run
than there are, a hash of the changed source chose them, and the last column is a 95 % confidence
interval (Wilson) of the score that all mutants of the module would have; a sample fails if all of
the interval is below {least:.0f} %. A row speaks of the module with this SHA-256.

| module | SHA-256 | mutants | run | killed | survived | score | interval |
|---|---|---|---|---|---|---|---|
"""


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def page(found: Sequence[Found], reasons: Iterable[Reason], missing: Sequence[str]) -> str:
    """Scores by module, modules of the plan without one, then every survivor with its reason."""
    lines = [HEAD.format(least=LEAST_SCORE)]
    lines += [
        f"| `{one.module}` | `{one.version}` | {one.mutants} | {len(one.outcomes)} | {one.killed} |"
        f" {len(one.survivors)} | {one.score:.1f} % | {one.interval} |\n"
        for one in found
    ]
    if missing:
        listed = "".join(f"- `{module}`\n" for module in missing)
        lines.append(f"\nIn the plan, but not run as they are now:\n\n{listed}")
    lines.append("\n## Survivors\n")
    for one in found:
        if not one.survivors:
            continue
        lines.append(f"\n### {one.module}\n\n| where | was | became | why it may live |\n")
        lines.append("|---|---|---|---|\n")
        for mutant in one.survivors:
            why = next((r.reason for r in reasons if r.covers(mutant)), "**no reason given**")
            before, after = _code(mutant.before), _code(mutant.after)
            lines.append(f"| `{mutant.where}` | {before} | {after} | {why} |\n")
    return "".join(lines)


def _code(line: str) -> str:
    if not line:
        return "nothing"
    return "`` " + line.replace("|", "\\|") + " ``"


def complaints(found: Sequence[Found], reasons: Sequence[Reason]) -> list[str]:
    """Why the run fails, if it does."""
    bare = [
        mutant.name
        for one in found
        for mutant in one.survivors
        if not any(reason.covers(mutant) for reason in reasons)
    ]
    whole = {one.module: one for one in found if one.mutants == len(one.outcomes)}
    gone = [
        f"{reason.module} {reason.where}: {reason.before}"
        for reason in reasons
        if reason.module in whole
        and not any(reason.covers(mutant) for mutant in whole[reason.module].outcomes)
    ]
    return [
        *(f"score too low: {one.module}" for one in found if one.bounds[1] < LEAST_SCORE),
        *(f"no reason given: {name}" for name in bare),
        *(f"a reason for what is gone: {name}" for name in gone),
    ]


def sampled(mutants: list[Mutant], count: int | None) -> list[Mutant]:
    """`count` of the mutants, always the same ones for the same code, or all."""
    if count is None or count >= len(mutants):
        return mutants
    return sorted(mutants, key=lambda mutant: digest(mutant.source.encode()))[:count]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mutation testing of the secure sums.")
    parser.add_argument("--sample", type=int, help="mutants per module (default: all)")
    parser.add_argument("--module", action="append", help="only this module; may be repeated")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")
    parser.add_argument("--fresh", action="store_true", help="run again what was run before")
    parser.add_argument("--list", action="store_true", help="count mutants, run nothing")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 if every module scores enough and every survivor has a reason.

    With --write the page has every module of the plan of which outcomes are known.
    """
    options = _options(arguments)
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for library in LIBRARIES:
        importlib.import_module(library)
    gc.freeze()  # pytest collects garbage twice: in a child, what was loaded before is none
    targets, reasons = read_plan()
    runner = Runner(options.workers, say=say, fresh=options.fresh, keep=True)
    found: list[Found] = []
    for target in targets:
        chosen = not options.module or target.module in options.module
        if not (chosen or options.write):
            continue
        mutants = mutants_of(target.module)
        if options.list:
            say(f"{target.module}: {len(mutants)} mutants")
            continue
        if chosen:
            runner.run(target, sampled(mutants, options.sample))
        outcomes = runner.known(target, mutants)
        if outcomes:
            found.append(Found(target.module, len(mutants), outcomes))
            say(f"{target.module}: score {found[-1].score:.1f} %")
    if options.list:
        return 0
    scored = {one.module for one in found}
    missing = [target.module for target in targets if target.module not in scored]
    text = page(found, reasons, missing if options.write else ())
    if options.write:
        TABLE.write_text(text)
    say("\n" + text)
    wrong = complaints(found, reasons)
    for line in wrong:
        say(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
