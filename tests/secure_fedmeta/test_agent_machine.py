"""An agent against a simple model of one: whatever order its methods are called in."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from secure_fedmeta.agent import MODES, PersonalAgent
from secure_fedmeta.agent.choice import FEWEST, WAYS
from secure_fedmeta.agent.contents import NOTICES
from secure_fedmeta.agent.drift import LONGEST
from secure_fedmeta.agent.file import encode
from secure_fedmeta.errors import AgentError
from tests.secure_fedmeta.agents import KEY, KINDS, agent_of, examples

CAPACITY = 40
NEW = {kind: examples(kind, 3, seed=99)[0] for kind in KINDS}


class Life(RuleBasedStateMachine):
    """What an agent must do; `self.rows` is what it must remember."""

    @initialize(kind=st.sampled_from(sorted(KINDS)))
    def begin(self, kind: str) -> None:
        self.kind = kind
        self.agent = agent_of(kind, capacity=CAPACITY, local_steps=5)
        self.fresh = encode(self.agent.contents())
        self.rows: list[tuple[bytes, float]] = []
        self.seen = 0
        self.feedback = 0
        self.mode: str | None = None

    @rule(
        count=st.integers(1, 25),
        seed=st.integers(0, 50),
        slope=st.sampled_from([1.0, 1.0, -3.0]),
    )
    def observe(self, count: int, seed: int, slope: float) -> None:
        x, y = examples(self.kind, count, seed=seed, slope=slope)
        noticed = self.agent.observe(x, y)
        self.seen += count
        self.rows += [(row.tobytes(), float(target)) for row, target in zip(x, y, strict=True)]
        self.rows = self.rows[-CAPACITY:]
        assert noticed.examples == count
        assert len(noticed.losses) == (count if self.mode is not None else 0)
        if noticed.changes:  # what came before a change may be forgotten, from the oldest on
            assert self.mode is not None
            self.rows = self.rows[-noticed.remembered :]
            self.mode = None if self.agent.learned is None else self.agent.learned.mode
            assert self.agent.notices[-1] == noticed.changes[-1]

    @precondition(lambda self: self.mode is not None)
    @rule(seed=st.integers(0, 50))
    def change(self, seed: int) -> None:
        """Feedback of another user: mostly long enough for an alarm."""
        self.observe(count=25, seed=seed, slope=1.0)
        self.observe(count=60, seed=seed + 1, slope=-6.0)

    @rule(mode=st.sampled_from(MODES))
    def learn(self, mode: Any) -> None:
        before = encode(self.agent.contents())
        try:
            choice = self.agent.learn(mode)
        except AgentError:
            assert not self.rows or (mode == "mixture" and not self._can_judge())
            assert encode(self.agent.contents()) == before
            return
        self.mode = mode
        if mode != "auto":
            assert choice.way == mode
        elif not self._can_judge():
            assert (choice.way, choice.scores) == ("adapted", {})
        else:
            assert choice.scores[choice.way] <= choice.scores["global"]
            assert set(choice.scores) == set(WAYS)
        assert self.agent.drift.losses == []

    @rule()
    def act(self) -> None:
        before = encode(self.agent.contents())
        found, again = self.agent.act(NEW[self.kind]), self.agent.act(NEW[self.kind])
        assert torch.equal(found.outputs, again.outputs)
        assert encode(self.agent.contents()) == before
        if self.mode is None:
            assert torch.equal(found.outputs, self.agent.unadapted(NEW[self.kind]).outputs)
        if found.probabilities is not None:
            np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
        if found.interval is not None:
            assert (found.interval[0] <= found.interval[1]).all()

    @rule(locked=st.booleans())
    def save_and_load(self, locked: bool) -> None:
        expected = self.agent.act(NEW[self.kind]).outputs
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.agent"
            if locked:
                self.agent.save(path, KEY, rand=os.urandom)
                again = PersonalAgent.load(path, KEY)
            else:
                self.agent.save_plain(path)
                again = PersonalAgent.load_plain(path)
        assert encode(again.contents()) == encode(self.agent.contents())
        assert torch.equal(again.act(NEW[self.kind]).outputs, expected)
        self.agent = again

    @rule()
    def explain(self) -> None:
        found = self.agent.explain()
        assert (found.remembered, found.forgotten) == (
            len(self.rows),
            self.seen - len(self.rows),
        )
        assert found.mode == self.mode
        assert all(1 <= one.example <= len(self.rows) for one in found.predictions)
        assert found.lines()

    @precondition(lambda self: self.seen > 0)
    @rule()
    def reset(self) -> None:
        self.agent.reset()
        assert encode(self.agent.contents()) == self.fresh
        self.rows, self.seen, self.mode = [], 0, None

    def _can_judge(self) -> bool:
        labels = [target for _, target in self.rows]
        if len(labels) < FEWEST:
            return False
        return self.kind == "number" or all(labels.count(label) > 1 for label in labels)

    @invariant()
    def memory(self) -> None:
        if not hasattr(self, "agent"):
            return
        held = [
            (row.tobytes(), float(target))
            for row, target in zip(self.agent.x, self.agent.y, strict=True)
        ]
        assert held == self.rows
        assert self.agent.seen == self.seen
        assert len(self.agent.drift.losses) <= LONGEST
        assert len(self.agent.notices) <= NOTICES


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=15, stateful_step_count=12)
