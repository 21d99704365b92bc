"""The agent of one person: a released model, that person's examples, and what was made of both.

Everything is a function of the examples in the order in which they came, so that the same examples
give the same bits. In mode `adapted` these are the bits that the run's report scored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crypto.keys import Rand
from crypto.locked_file import COST, Lock
from secure_fedmeta.agent.answering import Answer, Answering
from secure_fedmeta.agent.choice import (
    DECLARED,
    MODES,
    Choice,
    Held,
    Mode,
    best_blend,
    choose,
    cross_validate,
    declared,
    too_few,
)
from secure_fedmeta.agent.confidence import (
    Calibration,
    calibrated,
    nothing_known,
    with_residuals,
)
from secure_fedmeta.agent.contents import CAPACITY, MAX_CAPACITY, NOTICES, Contents, Learned
from secure_fedmeta.agent.drift import FALSE_ALARM, Drift
from secure_fedmeta.agent.explain import Explanation, explain
from secure_fedmeta.agent.file import load, load_plain, save, save_plain
from secure_fedmeta.agent.predict import losses
from secure_fedmeta.agent.spec import AgentSpec, Network
from secure_fedmeta.errors import AgentError
from secure_fedmeta.evaluation import adapt_alone
from secure_fedmeta.tasks.protocol import Floats


@dataclass(frozen=True, repr=False)
class Noticed:
    """What feedback told.

    Attributes:
        examples: how many were taken.
        remembered: how many own examples there are now.
        losses: of the predictions that the agent would have given; none before it learned.
        changes: in words: every change that was noticed, and what was done.
    """

    examples: int
    remembered: int
    losses: tuple[float, ...]
    changes: tuple[str, ...]


class PersonalAgent:
    """Adapts a run's model to one person's examples, and answers.

    It remembers the newest `capacity` examples. Nothing of it is protected by any epsilon: keep it
    with its user.

    Args:
        spec: what it is made of.
        model: the run's model `[d] float32`.
        capacity: own examples that it remembers, at least 1.

    Raises:
        ConfigError: the spec names what does not exist or cannot be built.
        AgentError: the model is another one's, or the capacity is out of range.
    """

    def __init__(self, spec: AgentSpec, model: torch.Tensor, *, capacity: int = CAPACITY) -> None:
        self.spec = spec
        self.network: Network = spec.build()
        size = self.network.personal.spec.size
        if model.shape != (size,) or not bool(torch.isfinite(model).all()):
            raise AgentError(f"the model must be {size} finite numbers, not {list(model.shape)}")
        if not 1 <= capacity <= MAX_CAPACITY:
            raise AgentError(f"capacity {capacity}; allowed: 1 to {MAX_CAPACITY}")
        self.model = model.detach().to("cpu", torch.float32).clone()
        self.capacity = capacity
        self._says = Answering(spec, self.network, self.model)
        self._put(Contents.fresh(spec, self.model, capacity))

    @classmethod
    def of(cls, contents: Contents) -> PersonalAgent:
        """The agent that was put down.

        Raises:
            ConfigError, AgentError: as for a new one; examples that it could not have taken.
        """
        agent = cls(contents.spec, contents.model, capacity=contents.capacity)
        if len(contents.y) > min(contents.capacity, contents.seen):
            raise AgentError(f"{len(contents.y)} examples are more than the agent remembers")
        if len(contents.y):
            agent._checked(contents.x, contents.y)
        agent._put(contents)
        return agent

    @classmethod
    def load(cls, path: Path, key: Lock) -> PersonalAgent:
        """The agent of a locked file; raises what `agent.file.load` does."""
        return cls.of(load(path, key))

    @classmethod
    def load_plain(cls, path: Path) -> PersonalAgent:
        """The agent of a file in the clear; raises what `agent.file.load_plain` does."""
        return cls.of(load_plain(path))

    def save(self, path: Path, key: Lock, *, rand: Rand = os.urandom, cost: int = COST) -> None:
        """Write a locked file in place of what was there; see `agent.file.save`."""
        save(path, self.contents(), key, rand=rand, cost=cost)

    def save_plain(self, path: Path, *, rand: Rand = os.urandom) -> None:
        """Write a file in the clear: whoever reads it has its user's examples."""
        save_plain(path, self.contents(), rand=rand)

    def contents(self) -> Contents:
        """The agent, put down: it goes on from these bit by bit."""
        return Contents(
            self.spec,
            self.model,
            self.capacity,
            self.x,
            self.y,
            self.seen,
            self.learned,
            tuple(self.drift.losses),
            self.notices,
        )

    def _put(self, contents: Contents) -> None:
        self.x, self.y, self.seen = contents.x, contents.y, contents.seen
        self.learned: Learned | None = contents.learned
        self.drift = Drift(contents.losses)
        self.notices: tuple[str, ...] = contents.notices

    def __repr__(self) -> str:
        return f"PersonalAgent(run={self.spec.run!r}, examples redacted)"

    def observe(self, x: Floats, y: Floats) -> Noticed:
        """Take labelled examples, in order.

        Once the agent has learned, each is first predicted and its loss handed to the test for
        drift. At an alarm the examples from before the change are forgotten, but for the newest
        `k_support`, and the agent learns anew in the same mode.

        Args:
            x: `[n, features]`, finite and between the source's bounds.
            y: `[n]`: classes from 0, or numbers.

        Raises:
            AgentError: other shapes or values; nothing was taken.
        """
        x, y = self._checked(x, y)
        found: list[float] = []
        changes: list[str] = []
        if self.learned is None:
            self._remember(x, y)
            return Noticed(len(y), len(self.y), (), ())
        for row, target in zip(x[:, None], y[:, None], strict=True):
            found.append(self._loss(row, target))
            if self.drift.full:
                self.drift = Drift()
            self.drift.observe(found[-1])
            self._remember(row, target)
            if self.drift.alarm:
                changes.append(self._start_anew())
        self.notices = (*self.notices, *changes)[-NOTICES:]
        return Noticed(len(y), len(self.y), tuple(found), tuple(changes))

    def learn(self, mode: Mode = "auto") -> Choice:
        """Adapt to the remembered examples, choose what answers, and see how sure it is.

        Args:
            mode: `auto` chooses; any other name fixes the choice.

        Raises:
            AgentError: an unknown mode; no example, or too few for a mixture; training diverged.
        """
        if mode not in MODES:
            raise AgentError(f"mode {mode!r}; allowed: {', '.join(MODES)}")
        if len(self.y) == 0 and mode != "global":
            raise AgentError("there is no own example to learn from")
        held, few = self._held()
        choice = self._choice(mode, held, few)
        vectors = self._trained(choice)
        if not all(bool(torch.isfinite(vector).all()) for vector in vectors.values()):
            if mode != "auto":
                raise AgentError(f"training diverged on these examples: {mode} has no model")
            choice, vectors = _diverged(choice), {}
        calibration = self._calibrated(choice, held, few)
        folds = {} if held is None or calibration.errors is None else held.vectors
        self.learned = Learned(
            mode=mode,
            choice=choice,
            examples=len(self.y),
            vectors=vectors,
            calibration=calibration,
            fold_vectors={name: folds[name] for name in vectors if name in folds},
        )
        self.drift = Drift()
        return choice

    def act(self, x: Floats) -> Answer:
        """Predict; nothing about the agent changes.

        Args:
            x: `[n, features]`, finite and between the source's bounds.

        Raises:
            AgentError: other shapes or values.
        """
        return self._says.answer(self._checked_inputs(x), self.learned)

    def unadapted(self, x: Floats) -> Answer:
        """What the run's model predicts without this person's examples; as `act`."""
        return self._says.answer(self._checked_inputs(x), None)

    def reset(self) -> None:
        """Forget all examples and all that was learned from them; the run's model stays."""
        self._put(Contents.fresh(self.spec, self.model, self.capacity))

    def explain(self) -> Explanation:
        """What adaptation changed, in words and in numbers; nothing about the agent changes."""
        return explain(self)

    # --- learning -------------------------------------------------------------------------------

    def _held(self) -> tuple[Held | None, str | None]:
        """Predictions of own examples by models of the others; or why there are none."""
        classes = self.spec.classes
        few = too_few(self.y, classes=classes)
        if few is not None:
            return None, few
        return cross_validate(self.network, self.model, self.x, self.y, classes=classes), None

    def _choice(self, mode: Mode, held: Held | None, few: str | None) -> Choice:
        if mode in ("global", "adapted", "local"):
            return Choice(mode, {mode: 1.0}, {}, f"{mode} was asked for")
        if held is None:
            if mode == "mixture":
                raise AgentError(f"{few}: a mixture has no weights; take another mode")
            return declared(str(few))
        if mode == "mixture":
            weights = best_blend(held, self.y, classes=self.spec.classes)
            return Choice("mixture", weights, {}, "mixture was asked for")
        return choose(held, self.y, classes=self.spec.classes)

    def _trained(self, choice: Choice) -> dict[str, torch.Tensor]:
        """The models that the choice needs, trained on all own examples."""
        ways = {
            "adapted": (self.network.personal, self.model),
            "local": (self.network.local, self.network.initial),
        }
        return {
            name: adapt_alone(*ways[name], self.x, self.y)
            for name in choice.weights
            if name in ways
        }

    def _calibrated(self, choice: Choice, held: Held | None, few: str | None) -> Calibration:
        classes = self.spec.classes
        if held is None:
            return nothing_known(str(few), classes=classes)
        prediction = held.of(choice.weights, log=classes is not None)
        models = [held.vectors[name] for name in choice.weights if name in held.vectors]
        whole = all(bool(torch.isfinite(vectors).all()) for vectors in models)
        if not (whole and np.isfinite(prediction).all()):
            return nothing_known("models of parts of the examples diverged", classes=classes)
        if classes is not None:
            return calibrated(prediction, self.y)
        fixed = choice.way == "global"
        return with_residuals(prediction, self.y, held.folds, fixed=fixed)

    # --- examples -------------------------------------------------------------------------------

    def _loss(self, x: Floats, y: NDArray[np.float32]) -> float:
        """The loss of the prediction that the agent gives for one row, uncalibrated."""
        _, prediction = self._says.predict(x, self.learned)
        return float(losses(prediction, y, classes=self.spec.classes)[0])

    def _remember(self, x: Floats, y: Floats) -> None:
        self.x = np.concatenate([self.x, x])[-self.capacity :]
        self.y = np.concatenate([self.y, y])[-self.capacity :]
        self.seen += len(y)

    def _start_anew(self) -> str:
        """Forget what came before the change, and learn from the rest."""
        learned, before = self.learned, len(self.y)
        since = len(self.drift.losses) - self.drift.began
        kept = min(before, max(since, self.spec.k_support))
        self.x, self.y = self.x[-kept:], self.y[-kept:]
        mode: Mode = DECLARED if learned is None else learned.mode
        try:
            choice = self.learn(mode)
        except AgentError:  # a fixed mode that these examples do not allow: the choice is free
            choice = self.learn("auto")
        return (
            f"example {self.seen}: the losses have grown (a test of unchanged feedback says so "
            f"with probability {FALSE_ALARM:g} at most). {before - kept} examples from before the "
            f"change were forgotten, and {choice.way} was learned from the newest {kept}"
        )

    def _checked(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        x, y = self._checked_inputs(x), np.asarray(y, dtype=np.float32)
        if y.shape != (len(x),):
            raise AgentError(f"targets of shape {list(y.shape)} for {len(x)} examples")
        if not np.isfinite(y).all():
            raise AgentError("a target is not finite")
        classes = self.spec.classes
        if classes is not None and not (
            (y == np.floor(y)).all() and (y >= 0).all() and (y < classes).all()
        ):
            raise AgentError(f"a target is no class from 0 to {classes - 1}")
        return x, y

    def _checked_inputs(self, x: Floats) -> Floats:
        x = np.asarray(x, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self.spec.model.inputs or len(x) == 0:
            raise AgentError(
                f"inputs of shape {list(x.shape)}; allowed: [n, {self.spec.model.inputs}], n >= 1"
            )
        low, high = np.float32(self.spec.low), np.float32(self.spec.high)
        if not ((x >= low) & (x <= high)).all():
            raise AgentError(f"an input is not between {self.spec.low:g} and {self.spec.high:g}")
        return x


def _diverged(choice: Choice) -> Choice:
    why = f"training diverged for {choice.way}: global is taken"
    return Choice("global", {"global": 1.0}, choice.scores, why)
