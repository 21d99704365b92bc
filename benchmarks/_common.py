"""What every benchmark reports beside its figures, and how it times contestants in turn."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch


@dataclass(frozen=True)
class Timing:
    """Times of one contestant, in seconds, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.seconds)

    def to_json(self) -> dict[str, float]:
        """Median, fastest, and the quartiles, in milliseconds."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        figures = {
            "median_ms": self.median,
            "fastest_ms": min(self.seconds),
            "lower_quartile_ms": low,
            "upper_quartile_ms": high,
        }
        return {name: round(value * 1e3, 4) for name, value in figures.items()}


def in_turn(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every contestant once per round, so that a noisy moment hits all of them alike.

    Args:
        contestants: what to time, by name; results are discarded.
        rounds: timed calls of each, 2 or more.
        warmup: untimed calls of each before.
        clock: what is timed, in seconds: wall time, or `time.process_time` for the processor time
            of this process, which other load on the machine changes less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warmup + rounds):
        for name, call in contestants.items():
            start = clock()
            call()
            elapsed = clock() - start
            if number >= warmup:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def machine() -> dict[str, object]:
    """The machine that the figures were taken on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(value, 2) for value in os.getloadavg()],
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": f"{platform.system()} {platform.machine()}",
        "torch_threads": torch.get_num_threads(),
    }


def versions(*distributions: str) -> dict[str, str]:
    """Versions of Python and of the named distributions."""
    return {"python": platform.python_version()} | {name: version(name) for name in distributions}


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share: `--json` and `--seed`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print the JSON result alone")
    parser.add_argument("--seed", type=int, default=1, help="seed of data and initial weights")
    return parser


def report(result: Mapping[str, object], *, lines: Sequence[str], quiet: bool) -> None:
    """Print `lines` unless `quiet`, then `result` as one JSON object on the last line."""
    if not quiet:
        for line in lines:
            print(line)
    print(json.dumps(result, sort_keys=True))


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
