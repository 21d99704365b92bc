"""Where the time of a run goes: a trace of its first rounds, by stage and by operation of torch.

The trace is a file for https://ui.perfetto.dev or chrome://tracing. It holds names and times, and
nothing else that torch knows: no shapes, no stacks with paths, no process ids, no moment of the
day. Times and numbers of events still say how much work each client had, and so how many tasks it
has: data that are not declared public are not profiled.

On a CUDA device the stages are NVTX ranges as well, for Nsight Systems.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from privacy.stages import Stage, observed
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.tasks import SourceInfo

TRACE: Final = "trace.json"
ROUNDS: Final = 3
MOST_EVENTS: Final = 100_000
_KINETO_LEVEL: Final = "KINETO_LOG_LEVEL"
_RANGES: Final = ("user_annotation", "gpu_user_annotation")
_WORK: Final = ("cpu_op", "kernel", "gpu_memcpy", "gpu_memset")
_NAME: Final = re.compile(r"[\w:.<>(), *&#~-]{1,300}", re.ASCII)


class Profile:
    """Profiles the first ROUNDS rounds of a run; an Instrument.

    Attributes:
        path: the file, once there is one.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._profiler: profile | None = None
        self._folder = Path()
        self._done = 0

    def check(self, info: SourceInfo) -> None:
        """Refuse data that are not public. Raises ConfigError."""
        if not info.public:
            raise ConfigError(
                "a trace shows how long each client computes, and so how many tasks it has: "
                "profile a run on public data of the same size",
                key="--profile",
            )

    @contextmanager
    def watching(self, directory: Path) -> Iterator[None]:
        """Profile until ROUNDS rounds ended, or the block does."""
        self._folder = directory
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self._profiler = profile(activities=activities, acc_events=True)
        with _silent_kineto():
            self._profiler.start()
        with observed(self._range):
            try:
                yield
            finally:
                self._stop()

    def resumed(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The first rounds from here on are traced."""

    def round_done(self, record: Mapping[str, Any]) -> None:
        """Write the file after the last profiled round."""
        del record
        self._done += 1
        if self._done == ROUNDS:
            self._stop()

    def finished(self, report: Mapping[str, Any]) -> None:
        """The report says nothing that a trace needs."""

    def lines(self) -> list[str]:
        """Where the file is, and what opens it."""
        return [f"Trace: {self.path} (open it at https://ui.perfetto.dev or chrome://tracing)"]

    def _range(self, name: Stage) -> AbstractContextManager[object]:
        return nullcontext() if self._profiler is None else _marked(str(name))

    def _stop(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        profiler.stop()
        with tempfile.TemporaryDirectory() as scratch:
            raw = Path(scratch) / TRACE
            profiler.export_chrome_trace(str(raw))
            events = json.loads(raw.read_text(encoding="utf-8"))["traceEvents"]
        self.path = self._folder / TRACE
        self.path.write_text(json.dumps(bare(events), separators=(",", ":")), encoding="utf-8")


@contextmanager
def _silent_kineto() -> Iterator[None]:
    """Keep the library under torch's profiler from writing to stderr.

    It reads the variable once, when a process profiles for the first time; 6 is above all levels.
    Whoever sets it is obeyed.
    """
    if _KINETO_LEVEL in os.environ:
        yield
        return
    os.environ[_KINETO_LEVEL] = "6"
    try:
        yield
    finally:
        del os.environ[_KINETO_LEVEL]


@contextmanager
def _marked(name: str) -> Iterator[None]:
    """A range of torch's profiler, and of NVTX where there is a GPU."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.nvtx.range_push(name)  # type: ignore[no-untyped-call]
    try:
        with record_function(name):
            yield
    finally:
        if gpu:
            torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]


def bare(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Names, times and lanes of the stages and of torch's work, as a trace; nothing else.

    Times are microseconds from the first event. Processes and threads are numbered in the order in
    which they come. Of more than MOST_EVENTS the stages and the longest others are kept; the trace
    says how many were left out.
    """
    known = [event for event in events if _shown(event)]
    ranges = [event for event in known if event["cat"] in _RANGES]
    work = sorted((e for e in known if e["cat"] in _WORK), key=lambda e: -float(e["dur"]))
    kept = [*ranges, *work[: max(0, MOST_EVENTS - len(ranges))]]
    kept.sort(key=lambda event: float(event["ts"]))
    begun = float(kept[0]["ts"]) if kept else 0.0
    processes: dict[object, int] = {}
    threads: dict[object, int] = {}
    shown = [
        {
            "ph": "X",
            "cat": event["cat"],
            "name": event["name"],
            "ts": round(float(event["ts"]) - begun, 3),
            "dur": event["dur"],
            "pid": processes.setdefault(event["pid"], len(processes)),
            "tid": threads.setdefault((event["pid"], event["tid"]), len(threads)),
        }
        for event in kept
    ]
    return {"traceEvents": shown, "otherData": {"left_out": len(known) - len(kept)}}


def _shown(event: Mapping[str, Any]) -> bool:
    """Whether an event is a stage, or an operation whose name is one of code."""
    if event.get("ph") != "X" or "dur" not in event:
        return False
    if event.get("cat") in _RANGES:
        return event["name"] in set(Stage)
    return event.get("cat") in _WORK and _NAME.fullmatch(event["name"]) is not None
