"""Stages: whoever observes sees names in their order and nesting, and only inside the block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.simulation import Clock
from privacy.stages import Stage, observed, stage


class Spy:
    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def __call__(self, name: Stage) -> Iterator[None]:
        self.seen.append(f"+{name}")
        try:
            yield
        finally:
            self.seen.append(f"-{name}")


def test_an_observer_sees_stages_as_they_nest_and_end() -> None:
    spy = Spy()
    with stage(Stage.SUM), observed(spy):
        with stage(Stage.MASK), stage(Stage.CLIP):
            pass
        with pytest.raises(ValueError, match="inside"), stage(Stage.OPEN):
            raise ValueError("inside")
    with stage(Stage.NOISE):
        pass
    assert spy.seen == ["+mask", "+clip", "-clip", "-mask", "+open", "-open"]


def test_an_observer_inside_another_takes_its_place_and_gives_it_back() -> None:
    outer, inner = Spy(), Spy()
    with observed(outer):
        with observed(inner), stage(Stage.DRAW):
            pass
        with stage(Stage.SUM):
            pass
    assert (outer.seen, inner.seen) == (["+sum", "-sum"], ["+draw", "-draw"])


def test_a_clock_counts_no_stage_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 3.0, 10.0, 20.0, 25.0])
    monkeypatch.setattr("benchmarks.simulation.time.perf_counter", lambda: next(moments))
    clock = Clock()
    with clock(Stage.MASK), clock(Stage.CLIP):
        pass
    with clock(Stage.CLIP):
        pass
    assert clock.seconds == {"clip": 2.0 + 5.0, "mask": 10.0 - 2.0}
