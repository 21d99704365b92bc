"""What adaptation changed: in the model, and in what it says about own examples.

Changes are in the model's own units. For each named group of parameters: the Euclidean length
before and of the change. For each input: the same of its weights in the first layer; where that is
the only one, with one output, its weight before and after, which is by how much the output (for
classes the log-odds) moves when the input moves by 1. These are statements about the model, not
about causes in the world.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from secure_fedmeta.agent.rows import Reader

if TYPE_CHECKING:
    from secure_fedmeta.agent.agent import PersonalAgent
    from secure_fedmeta.agent.answering import Answer

MOST_IN_WORDS: Final = 5
"""Inputs and examples that are named in words; JSON has all of them."""


@dataclass(frozen=True, repr=False)
class Moved:
    """How far a group of parameters moved.

    Attributes:
        name: the parameter, or the input.
        before: Euclidean length, or the one weight.
        after: the same, after adaptation.
        change: length of the difference; of one weight the difference itself.
    """

    name: str
    before: float
    after: float
    change: float


@dataclass(frozen=True, repr=False)
class Changed:
    """An own example about which the agent says something else than the run's model.

    Attributes:
        example: its place among the remembered ones, from 1, the oldest first.
        before: what the run's model says.
        after: what the agent says.
        target: its target.
    """

    example: int
    before: str | float
    after: str | float
    target: str | float


@dataclass(frozen=True, repr=False)
class Explanation:
    """What an agent made of its examples.

    Attributes:
        way: what answers.
        mode: what was asked for; None where nothing was learned yet.
        why: in words.
        weights: model -> weight.
        scores: candidate -> cross-validated loss; None where it diverged.
        examples: own examples that were learned from.
        remembered: own examples now.
        forgotten: own examples that made room for newer ones, or came before a change.
        confidence: what the confidence means.
        parameters: every parameter of the adapted model; none where it is not used.
        inputs: every input, where the first layer has a weight for each.
        single_weights: whether `inputs` tells weights of a linear model with one output.
        predictions: own examples about which the agent says something else: another class, or a
            number that differs.
        notices: changes of the feedback that were noticed.
    """

    way: str
    mode: str | None
    why: str
    weights: dict[str, float]
    scores: dict[str, float | None]
    examples: int
    remembered: int
    forgotten: int
    confidence: str
    parameters: tuple[Moved, ...]
    inputs: tuple[Moved, ...]
    single_weights: bool
    predictions: tuple[Changed, ...]
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Every field by name."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same in words."""
        found = [f"Answers by: {self.way}. Why: {self.why}."]
        if len(self.weights) > 1:
            parts = ", ".join(f"{name} {weight:g}" for name, weight in self.weights.items())
            found.append(f"Weights: {parts}.")
        found.append(
            f"Own examples: {self.remembered} remembered, {self.forgotten} forgotten; learned from "
            f"{self.examples}."
        )
        found.append(f"Confidence: {self.confidence}.")
        for moved in self.parameters:
            share = f" ({moved.change / moved.before:.1%} of it)" if moved.before else ""
            found.append(
                f"Parameter {moved.name}: length {moved.before:.4g}, moved by {moved.change:.4g}"
                f"{share}."
            )
        moving = [one for one in self.inputs if one.change != 0]
        ranked = sorted(moving, key=lambda one: -abs(one.change))[:MOST_IN_WORDS]
        what = "weight" if self.single_weights else "length of the weights"
        for moved in ranked:
            found.append(
                f"Input {moved.name}: {what} from {moved.before:.4g} to {moved.after:.4g}, a "
                f"change of {moved.change:.4g}."
            )
        if self.parameters:
            found.append(
                f"Says something else about {len(self.predictions)} of {self.remembered} own "
                "examples than the run's model."
            )
        for one in self.predictions[:MOST_IN_WORDS]:
            found.append(
                f"Example {one.example}: {_shown(one.before)} before, {_shown(one.after)} now, "
                f"target {_shown(one.target)}."
            )
        found += [f"Noticed at {notice}." for notice in self.notices]
        return found


def explain(agent: PersonalAgent) -> Explanation:
    """What the agent made of its examples; nothing about it changes."""
    learned = agent.learned
    own = None if learned is None else learned.vectors.get("adapted")
    inputs, single = _inputs(agent, own)
    scores = {} if learned is None else learned.choice.scores
    return Explanation(
        way="global" if learned is None else learned.choice.way,
        mode=None if learned is None else learned.mode,
        why="nothing was learned yet" if learned is None else learned.choice.why,
        weights={"global": 1.0} if learned is None else dict(learned.choice.weights),
        scores={way: found if np.isfinite(found) else None for way, found in scores.items()},
        examples=0 if learned is None else learned.examples,
        remembered=len(agent.y),
        forgotten=agent.seen - len(agent.y),
        confidence=("nothing was learned yet" if learned is None else learned.calibration.note),
        parameters=_parameters(agent, own),
        inputs=inputs,
        single_weights=single,
        predictions=_predictions(agent),
        notices=agent.notices,
    )


def _parameters(agent: PersonalAgent, own: torch.Tensor | None) -> tuple[Moved, ...]:
    if own is None:
        return ()
    spec = agent.network.personal.spec
    before, after = spec.unflatten(agent.model), spec.unflatten(own)
    return tuple(_moved(name, before[name], after[name]) for name in spec.names)


def _inputs(agent: PersonalAgent, own: torch.Tensor | None) -> tuple[tuple[Moved, ...], bool]:
    """Each input's weights in the first layer, and whether they are single weights."""
    network, features = agent.network, agent.spec.features
    layout, first = network.personal.spec, network.reads
    if own is None or first is None or first not in layout.names:
        return (), False
    before, after = (layout.unflatten(vector)[first] for vector in (agent.model, own))
    if before.shape[0] == 1 and len(network.local.spec.layers) == 1:
        pairs = zip(features, before[0].tolist(), after[0].tolist(), strict=True)
        return tuple(Moved(name, b, a, a - b) for name, b, a in pairs), True
    columns = zip(features, before.T, after.T, strict=True)
    return tuple(_moved(name, b, a) for name, b, a in columns), False


def _moved(name: str, before: torch.Tensor, after: torch.Tensor) -> Moved:
    return Moved(name, float(before.norm()), float(after.norm()), float((after - before).norm()))


def _predictions(agent: PersonalAgent) -> tuple[Changed, ...]:
    if agent.learned is None or len(agent.y) == 0:
        return ()
    said = [_said(agent, answer) for answer in (agent.unadapted(agent.x), agent.act(agent.x))]
    reader = Reader(agent.spec)
    labels = reader.labels
    if labels is None:
        target = reader.shown(agent.y.astype(np.float64))
        return tuple(
            Changed(place, float(b), float(a), float(t))
            for place, (b, a, t) in enumerate(zip(*said, target, strict=True), start=1)
            if b != a
        )
    return tuple(
        Changed(place, labels[int(b)], labels[int(a)], labels[int(t)])
        for place, (b, a, t) in enumerate(zip(*said, agent.y, strict=True), start=1)
        if b != a
    )


def _said(agent: PersonalAgent, answer: Answer) -> NDArray[np.float64]:
    """The most probable class of each row, or its first output in the target's own units."""
    if answer.probabilities is not None:
        return np.asarray(answer.probabilities.argmax(axis=1), dtype=np.float64)
    return Reader(agent.spec).shown(answer.outputs.numpy()[:, 0].astype(np.float64))


def _shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
