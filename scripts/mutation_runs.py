"""Tests of a module against each of its mutants, in forked children.

A child has the libraries already, and an import hook gives it the changed source of one module, so
that the working tree stays as it is and a mutant takes as long as its tests. A child that did not
load the changed module counts as an error, never as a survivor.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import CodeType
from typing import Any, Final

from mutation_sites import ROOT, Mutant

KEPT: Final = ROOT / "build" / "mutants.json"
NO_TESTS: Final = 5  # exit code of pytest
NOT_LOADED: Final = 99
_FORK: Final = multiprocessing.get_context("fork")
# Heavy and never mutated: loaded once, before the forks.
LIBRARIES: Final = (
    "numpy",
    "cryptography.hazmat.primitives.asymmetric.mlkem",
    "cryptography.hazmat.primitives.ciphers.aead",
    "cryptography.hazmat.primitives.kdf.hkdf",
    "hypothesis.strategies",
    "hypothesis.extra.numpy",
    "mpmath",
    "pydantic",
    "pytest",
    "rfc8785",
    "scipy.stats",
    "tenseal.sealapi",
    "zstandard",
)


@dataclass(frozen=True)
class Target:
    """A module and the arguments of pytest that select its tests, quickest first."""

    module: str
    tests: tuple[str, ...]


class Changed(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Gives one module the source of a mutant."""

    def __init__(self, module: str, source: str) -> None:
        name = module.removesuffix(".py").replace("/", ".")
        super().__init__(name, str(ROOT / module))
        self._source = source

    def find_spec(self, fullname: str, path: object, target: object = None) -> Any:
        """Take the mutated module and no other."""
        del path, target
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def get_code(self, fullname: str) -> CodeType:
        """Compile the mutant; nothing is read from or written to a cache."""
        del fullname
        return compile(self._source, self.path, "exec", dont_inherit=True)


def run_child(module: str, source: str, tests: Sequence[str]) -> None:
    """Run the tests with a mutant in this process, which exits with the code of pytest."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    import pytest

    finder = Changed(module, source)
    sys.meta_path.insert(0, finder)
    options = ["-x", "-q", "--assert=plain", "--tb=no", "-p", "no:cacheprovider", "-p", "no:cov"]
    options += ["-p", "no:xdist", "--hypothesis-profile=mutants"]
    code = int(pytest.main([*options, *tests]))
    loaded = sys.modules.get(finder.name)
    if code == 0 and getattr(loaded, "__loader__", None) is not finder:
        code = NOT_LOADED
    os._exit(code)


@dataclass(frozen=True)
class Child:
    """A running child."""

    mutant: Mutant
    process: ForkProcess
    since: float


class Runner:
    """Runs mutants, a few at a time. Outcomes are kept while a module and its tests are the same.

    Args:
        workers: children at a time.
        say: takes a line of progress.
        fresh: forget what earlier runs kept.
        keep: write outcomes down for later runs.
    """

    def __init__(
        self, workers: int, *, say: Callable[[str], None], fresh: bool, keep: bool
    ) -> None:
        self._workers = workers
        self._say = say
        self._keep = keep
        known = KEPT.exists() and not fresh
        self._kept: dict[str, str] = json.loads(KEPT.read_text()) if known else {}

    def run(self, target: Target, mutants: Sequence[Mutant]) -> dict[Mutant, str]:
        """Outcome of each mutant: killed, timeout or survived.

        Raises:
            SystemExit: the tests do not pass on the module as it is, or do not load it.
        """
        took = self._unchanged(target)
        keys = _keys(target, mutants)
        waiting = [mutant for mutant in mutants if keys[mutant] not in self._kept]
        self._say(
            f"{target.module}: {len(mutants)} mutants, {len(waiting)} to run; its tests take"
            f" {took:.1f} s"
        )
        results = self._outcomes(target, waiting, limit=5 + 5 * took)
        for done, (mutant, outcome) in enumerate(results, start=1):
            self._kept[keys[mutant]] = outcome
            if outcome == "survived":
                self._say(f"  survived: line {mutant.line}: {mutant.name}")
            if done % 25 == 0 or done == len(waiting):
                self._say(f"  {target.module}: {done} of {len(waiting)}")
                self._write()
        return {mutant: self._kept[keys[mutant]] for mutant in mutants}

    def known(self, target: Target, mutants: Sequence[Mutant]) -> dict[Mutant, str]:
        """Outcomes of those mutants that were run, now or before."""
        keys = _keys(target, mutants)
        return {mutant: self._kept[key] for mutant, key in keys.items() if key in self._kept}

    def _write(self) -> None:
        if self._keep:
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(self._kept, indent=0, sort_keys=True))

    def _unchanged(self, target: Target) -> float:
        """Seconds that the tests take on the module as it is, with which they must pass."""
        source = (ROOT / target.module).read_text()
        child = _start(target, Mutant(target.module, "", "", 0, "", "", source))
        child.process.join()
        if child.process.exitcode != 0:
            raise SystemExit(
                f"{target.module}: its tests do not pass unchanged (exit"
                f" {child.process.exitcode}): {' '.join(target.tests)}"
            )
        return time.monotonic() - child.since

    def _outcomes(
        self, target: Target, mutants: Sequence[Mutant], *, limit: float
    ) -> Iterator[tuple[Mutant, str]]:
        left = list(reversed(mutants))
        running: list[Child] = []
        while left or running:
            while left and len(running) < self._workers:
                running.append(_start(target, left.pop()))
            wait([child.process.sentinel for child in running], timeout=1)
            for child in list(running):
                outcome = _outcome(child, limit)
                if outcome is not None:
                    running.remove(child)
                    yield child.mutant, outcome


def _keys(target: Target, mutants: Sequence[Mutant]) -> dict[Mutant, str]:
    """What outcomes are kept under: the changed module and its tests."""
    tests = digest(*(_bytes_of(test) for test in target.tests))
    return {mutant: digest(mutant.source.encode(), tests.encode()) for mutant in mutants}


def _start(target: Target, mutant: Mutant) -> Child:
    process = _FORK.Process(target=run_child, args=(mutant.module, mutant.source, target.tests))
    process.start()
    return Child(mutant, process, time.monotonic())


def _outcome(child: Child, limit: float) -> str | None:
    """None while it runs."""
    code = child.process.exitcode
    if code is None:
        if time.monotonic() - child.since < limit:
            return None
        child.process.kill()
        child.process.join()
        return "timeout"
    if code in (NO_TESTS, NOT_LOADED):
        raise SystemExit(f"{child.mutant.name}: the tests did not load it (exit {code})")
    return "killed" if code else "survived"


def _bytes_of(test: str) -> bytes:
    path = ROOT / test.partition("::")[0]
    return path.read_bytes() if path.is_file() else test.encode()


def digest(*parts: bytes) -> str:
    """32 hexadecimal digits of the parts."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
