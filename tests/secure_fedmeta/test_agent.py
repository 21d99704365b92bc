"""The personal agent: the same bits every time, a cautious choice, a bounded memory, and words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fedmeta.agent import MODES, PersonalAgent
from secure_fedmeta.agent.agent import Noticed
from secure_fedmeta.agent.choice import (
    FEWEST,
    WAYS,
    Held,
    best_blend,
    choose,
    cross_validate,
    errors_of,
    folds_of,
)
from secure_fedmeta.agent.contents import NOTICES
from secure_fedmeta.agent.drift import FALSE_ALARM
from secure_fedmeta.agent.predict import log_probabilities, losses, mixed, to_outputs
from secure_fedmeta.errors import AgentError, ConfigError
from secure_fedmeta.meta import LEARNERS
from tests.secure_fedmeta.agents import INPUTS, KINDS, agent_of, examples, spec_of

kinds = pytest.mark.parametrize("kind", KINDS)


def taught(kind: str, count: int, mode: Any = "auto", **changes: Any) -> PersonalAgent:
    agent = agent_of(kind, **changes)
    agent.observe(*examples(kind, count))
    agent.learn(mode)
    return agent


# --- every learner --------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", LEARNERS.names())
@kinds
def test_adapted_is_the_learner_s_own_adaptation(algorithm: str, kind: str) -> None:
    agent = taught(kind, 6, "adapted", algorithm=algorithm, hidden=(4,), name="mlp_tanh")
    x, y = examples(kind, 6)
    learner = agent.network.personal
    own = learner.adapt(agent.model, torch.tensor(x), torch.tensor(y))
    new, _ = examples(kind, 5, seed=9)
    expected = learner.predict(own, torch.tensor(new))
    assert torch.equal(agent.act(new).outputs, expected)
    assert not torch.equal(agent.unadapted(new).outputs, expected)
    assert learner.name == algorithm


@kinds
def test_the_same_examples_give_the_same_bits(kind: str) -> None:
    new, _ = examples(kind, 5, seed=9)
    one, other = (taught(kind, 30).act(new) for _ in range(2))
    assert torch.equal(one.outputs, other.outputs)
    for part in ("probabilities", "interval"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


@kinds
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_fixes_the_way(kind: str, mode: Any) -> None:
    agent = taught(kind, 30, mode)
    assert agent.learned is not None
    way = agent.learned.choice.way
    assert way == mode if mode != "auto" else way in WAYS
    found = agent.act(examples(kind, 4, seed=5)[0])
    assert found.way == way
    assert torch.isfinite(found.outputs).all()


@kinds
def test_a_mixture_lies_between_what_it_mixes(kind: str) -> None:
    agent = taught(kind, 30, "mixture")
    assert agent.learned is not None
    weights = agent.learned.choice.weights
    assert len(weights) > 1
    assert sum(weights.values()) == 1.0
    new, _ = examples(kind, 7, seed=5)
    outputs = {
        "global": agent.model,
        **agent.learned.vectors,
    }
    parts = []
    for name in weights:
        learner = agent.network.local if name == "local" else agent.network.personal
        parts.append(learner.predict(outputs[name], torch.tensor(new)).double().numpy())
    found = agent.act(new).outputs.numpy()
    if kind == "number":
        expected = sum(w * p for w, p in zip(weights.values(), parts, strict=True))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        return
    chances = [np.exp(log_probabilities(part)) for part in parts]
    expected = sum(w * p for w, p in zip(weights.values(), chances, strict=True))
    np.testing.assert_allclose(np.exp(log_probabilities(found)), expected, rtol=1e-9)


# --- what it chooses ------------------------------------------------------------------------------


@kinds
@settings(max_examples=20)
@given(count=st.integers(FEWEST, 45), seed=st.integers(0, 1000), slope=st.sampled_from([0, 1, -3]))
def test_what_is_chosen_is_no_worse_than_the_run_s_model_and_as_simple_as_can_be(
    kind: str, count: int, seed: int, slope: int
) -> None:
    classes = spec_of(kind).classes
    rng = np.random.default_rng(seed)
    y = examples(kind, count, seed=seed)[1]
    width = 1 if classes is None else classes
    raw = {way: slope * rng.normal(size=(count, width)) for way in WAYS[:-1]}
    if classes is not None:
        raw = {way: log_probabilities(one) for way, one in raw.items()}
    held = Held(folds_of(count), {}, raw)
    found = choose(held, y, classes=classes)
    assert set(found.scores) == set(WAYS)
    assert found.scores[found.way] <= found.scores["global"]
    best = min(found.scores.values())
    shares = {way: {way: 1.0} for way in WAYS[:-1]}
    shares["mixture"] = best_blend(held, y, classes=classes)
    errors = {way: errors_of(held, shares[way], y, classes=classes) for way in WAYS}
    assert {way: np.mean(one) for way, one in errors.items()} == found.scores
    winner = next(way for way in WAYS if found.scores[way] == best)
    for way in WAYS[: WAYS.index(found.way)]:  # each simpler one is worse by more than its error
        difference = errors[way] - errors[winner]
        error = difference.std(ddof=1) / np.sqrt(count)
        worse = found.scores[way] > found.scores["global"]
        assert worse or difference.mean() > error


def test_an_unlike_user_adapts_or_trains_alone_and_a_like_one_does_not() -> None:
    like = agent_of("number")
    x, _ = examples("number", 40)
    like.observe(x, like.unadapted(x).outputs.numpy()[:, 0])
    assert like.learn().way == "global"
    unlike = agent_of("number")
    unlike.observe(*examples("number", 40, slope=4.0))
    found = unlike.learn()
    assert found.way in ("adapted", "local", "mixture")
    assert found.scores[found.way] < found.scores["global"]


@kinds
def test_with_too_few_examples_the_declared_way_is_taken_and_said(kind: str) -> None:
    agent = taught(kind, FEWEST - 1)
    assert agent.learned is not None
    assert agent.learned.choice.way == "adapted"
    assert "fewer than the 10 that can judge: the run's declared way" in agent.learned.choice.why
    assert agent.learned.choice.scores == {}
    with pytest.raises(AgentError, match="a mixture has no weights"):
        agent.learn("mixture")


def test_a_class_with_one_example_judges_nothing() -> None:
    agent = agent_of("binary")
    x, _ = examples("binary", 12)
    agent.observe(x, np.array([1.0] + [0.0] * 11, dtype=np.float32))
    assert "a class has one own example" in agent.learn().why


def test_ties_go_to_the_simpler() -> None:
    y = examples("number", 20)[1]
    same = np.zeros((20, 1))
    held = Held(folds_of(20), {}, dict.fromkeys(WAYS[:-1], same))
    assert choose(held, y, classes=None).way == "global"
    better = {"global": same, "adapted": y[:, None] + 0.0, "local": y[:, None] + 0.0}
    assert choose(Held(folds_of(20), {}, better), y, classes=None).way == "adapted"


def test_ways_are_compared_by_what_the_agent_would_say() -> None:
    """A model that is too sure by a factor is right once that is known: it is not passed over."""
    rng = np.random.default_rng(2)
    true = rng.normal(size=(40, 1)) * 3
    y = (rng.random(40) < 1 / (1 + np.exp(-true[:, 0]))).astype(np.float32)
    sure, dull = log_probabilities(true * 6), log_probabilities(true * 0.0)
    held = Held(folds_of(40), {}, {"global": dull, "adapted": sure, "local": dull})
    raw = {n: losses(p, y, classes=2).mean() for n, p in held.predictions.items()}
    assert raw["adapted"] > raw["global"]
    found = choose(held, y, classes=2)
    assert "adapted" in found.weights
    assert found.scores["adapted"] < raw["global"] == pytest.approx(np.log(2))


def test_what_diverged_is_not_chosen() -> None:
    y = examples("number", 20)[1]
    held = {"global": np.zeros((20, 1)), "adapted": np.full((20, 1), np.nan)}
    held["local"] = np.full((20, 1), np.inf)
    assert choose(Held(folds_of(20), {}, held), y, classes=None).way == "global"
    broken = dict.fromkeys(WAYS[:-1], held["adapted"])
    found = choose(Held(folds_of(20), {}, broken), y, classes=None)
    assert (found.way, found.scores) == ("global", {})
    agent = agent_of("number", steps=300, lr=50.0)
    agent.observe(*examples("number", 5))
    assert agent.learn().way == "global"
    with pytest.raises(AgentError, match="training diverged"):
        agent.learn("adapted")


@pytest.mark.parametrize("count", [10, 20, 21, 37])
def test_every_example_is_predicted_by_models_that_did_not_see_it(count: int) -> None:
    agent = agent_of("number")
    x, y = examples("number", count)
    held = cross_validate(agent.network, agent.model, x, y, classes=None)
    folds = count if count <= 20 else 10
    assert int(held.folds.max()) + 1 == folds
    for name, learner, start in (
        ("adapted", agent.network.personal, agent.model),
        ("local", agent.network.local, agent.network.initial),
    ):
        for i in range(count):
            rest = held.folds != held.folds[i]
            own = learner.adapt(start, torch.tensor(x[rest]), torch.tensor(y[rest]))
            wanted = learner.predict(own, torch.tensor(x[i : i + 1])).numpy()[0]
            np.testing.assert_allclose(held.predictions[name][i], wanted, atol=1e-5)
            np.testing.assert_allclose(held.vectors[name][held.folds[i]], own, atol=1e-5)


# --- memory, reset, refusals ----------------------------------------------------------------------


def test_it_remembers_the_newest() -> None:
    agent = agent_of("binary", capacity=7)
    x, y = examples("binary", 20)
    for row in range(20):
        noticed = agent.observe(x[row : row + 1], y[row : row + 1])
        assert noticed == Noticed(1, min(row + 1, 7), (), ())
    np.testing.assert_array_equal(agent.x, x[-7:])
    np.testing.assert_array_equal(agent.y, y[-7:])
    assert (agent.seen, agent.explain().forgotten) == (20, 13)


def test_before_it_learned_it_answers_as_the_run_s_model() -> None:
    agent = agent_of("classes")
    new, _ = examples("classes", 4, seed=5)
    agent.observe(*examples("classes", 12))
    found = agent.act(new)
    assert torch.equal(
        found.outputs, agent.network.personal.predict(agent.model, torch.tensor(new))
    )
    assert (found.way, "nothing was learned" in found.note) == ("global", True)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.zeros((2, INPUTS + 1)), np.zeros(2), "inputs of shape"),
        (np.zeros((0, INPUTS)), np.zeros(0), "inputs of shape"),
        (np.zeros(INPUTS), np.zeros(1), "inputs of shape"),
        (np.full((2, INPUTS), np.nan), np.zeros(2), "between -5 and 5"),
        (np.full((2, INPUTS), 5.01), np.zeros(2), "between -5 and 5"),
        (np.zeros((2, INPUTS)), np.zeros(3), "targets of shape"),
        (np.zeros((2, INPUTS)), np.array([0, np.inf]), "not finite"),
        (np.zeros((2, INPUTS)), np.array([0, 2]), "no class from 0 to 1"),
        (np.zeros((2, INPUTS)), np.array([0, 0.5]), "no class from 0 to 1"),
    ],
)
def test_bad_examples_are_refused_and_change_nothing(x: Any, y: Any, reason: str) -> None:
    agent = agent_of("binary")
    with pytest.raises(AgentError, match=reason):
        agent.observe(x, y)
    assert (len(agent.y), agent.seen) == (0, 0)


def test_what_cannot_be_is_refused() -> None:
    agent = agent_of("binary")
    with pytest.raises(AgentError, match="no own example"):
        agent.learn()
    with pytest.raises(AgentError, match="mode 'best'; allowed: auto, global"):
        agent.learn("best")  # type: ignore[arg-type]
    assert agent.learn("global").way == "global"
    with pytest.raises(AgentError, match="must be 4 finite numbers"):
        PersonalAgent(spec_of(), torch.zeros(5))
    with pytest.raises(AgentError, match="must be 4 finite numbers"):
        PersonalAgent(spec_of(), torch.full((4,), torch.nan))
    with pytest.raises(AgentError, match="capacity 0"):
        agent_of(capacity=0)
    with pytest.raises(ConfigError, match="no such model"):
        spec_of(name="resnet").build()
    with pytest.raises(AgentError, match="a network of"):
        spec_of(name="mlp", hidden=(2**20, 2**20)).build()


# --- feedback -------------------------------------------------------------------------------------


def test_a_change_is_noticed_and_learned_from() -> None:
    agent = agent_of("number")
    agent.observe(*examples("number", 60, slope=1.0))
    agent.learn("adapted")
    assert agent.observe(*examples("number", 60, seed=1, slope=1.0)).changes == ()
    changed = examples("number", 80, seed=2, slope=-3.0)
    noticed = agent.observe(*changed)
    assert len(noticed.losses) == 80
    (change,) = noticed.changes
    assert agent.notices == (change,)
    assert f"probability {FALSE_ALARM:g} at most" in change
    assert "adapted was learned from the newest" in change
    kept = int(change.rsplit(" ", 1)[1])
    at = int(change.split(":")[0].removeprefix("example ")) - 120
    assert 0 < at < 80
    assert abs(kept - at) <= 3  # nothing to speak of is kept from before the change
    new, y = examples("number", 50, seed=3, slope=-3.0)
    agent.learn("adapted")
    before = agent_of("number")
    before.observe(*examples("number", 60, slope=1.0))
    before.learn("adapted")
    errors = [np.mean((a.act(new).outputs.numpy()[:, 0] - y) ** 2) for a in (agent, before)]
    assert errors[0] < errors[1]
    assert change in " ".join(agent.explain().lines())


def test_one_by_one_or_at_once_is_the_same() -> None:
    one, other = agent_of("number"), agent_of("number")
    for agent in (one, other):
        agent.observe(*examples("number", 30))
        agent.learn("adapted")
        agent.observe(*examples("number", 40, seed=1))
    x, y = examples("number", 70, seed=2, slope=-3.0)
    at_once = one.observe(x, y)
    changes = [other.observe(x[i : i + 1], y[i : i + 1]).changes for i in range(70)]
    assert at_once.changes == tuple(change for found in changes for change in found) != ()
    assert torch.equal(one.act(x).outputs, other.act(x).outputs)
    assert one.drift.losses == other.drift.losses
    assert len(one.notices) <= NOTICES


# --- words ----------------------------------------------------------------------------------------


def test_explain_tells_the_weights_of_a_linear_model_before_and_after() -> None:
    agent = taught("binary", 30, "adapted")
    assert agent.learned is not None
    own = agent.learned.vectors["adapted"]
    found = agent.explain()
    assert found.single_weights
    for place, moved in enumerate(found.inputs):
        assert moved.name == f"x{place}"
        assert (moved.before, moved.after) == (float(agent.model[place]), float(own[place]))
        assert moved.change == moved.after - moved.before != 0
    weight = found.parameters[0]
    assert weight.name == "0.weight"
    assert weight.change == pytest.approx(float((own - agent.model)[:INPUTS].norm()))
    said = [agent.unadapted(agent.x), agent.act(agent.x)]
    classes = [one.probabilities.argmax(axis=1) for one in said if one.probabilities is not None]
    differ = np.flatnonzero(classes[0] != classes[1]) + 1
    assert [one.example for one in found.predictions] == differ.tolist() != []
    text = " ".join(found.lines())
    assert "Input x1: weight from" in text
    assert f"something else about {len(differ)} of 30 own examples" in text
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["way"] == "adapted"


def test_explain_of_a_deeper_model_and_of_numbers() -> None:
    agent = taught("number", 30, "adapted", name="mlp", hidden=(4,))
    found = agent.explain()
    assert not found.single_weights
    assert [one.name for one in found.inputs] == ["x0", "x1", "x2"]
    assert all(one.change > 0 for one in found.inputs)
    assert len(found.predictions) == 30
    assert "length of the weights" in " ".join(found.lines())
    plain = taught("number", 30, "global").explain()
    assert (plain.parameters, plain.inputs, plain.predictions) == ((), (), ())
    assert agent_of("number").explain().why == "nothing was learned yet"


def test_explain_tells_of_inputs_only_where_the_inputs_meet_weights_that_adapt() -> None:
    head = taught("number", 12, "adapted", algorithm="anil_head", name="mlp", hidden=(INPUTS,))
    found = head.explain()
    assert [one.name for one in found.parameters] == ["2.weight", "2.bias"]
    assert found.inputs == ()  # as many weights as inputs, but behind the body
    body = taught("number", 12, "adapted", algorithm="anil", name="mlp", hidden=(4,)).explain()
    assert [one.change for one in body.inputs] == [0.0] * INPUTS
    assert "Input" not in " ".join(body.lines())


def test_outputs_and_predictions_say_the_same() -> None:
    logits = np.array([[-2.0], [0.0], [3.0]])
    np.testing.assert_allclose(to_outputs(log_probabilities(logits), 1), logits)
    assert np.allclose(np.exp(log_probabilities(np.zeros((2, 3)))), 1 / 3)
    rng = np.random.default_rng(0)
    three = {name: rng.normal(size=(50, 1)) for name in "abc"}
    shares = {"a": 0.25, "b": 0.5, "c": 0.25}
    turned = dict(reversed(shares.items()))  # as a file gives them back
    for log in (True, False):
        np.testing.assert_array_equal(mixed(three, shares, log=log), mixed(three, turned, log=log))
    two = {"a": np.log([[0.2, 0.8]]), "b": np.log([[0.6, 0.4]])}
    np.testing.assert_allclose(np.exp(mixed(two, {"a": 0.25, "b": 0.75}, log=True)), [[0.5, 0.5]])
    assert losses(np.log([[0.2, 0.8]]), np.array([1.0]), classes=2) == pytest.approx(-np.log(0.8))
    assert losses(np.array([[1.0]]), np.array([3.0]), classes=None) == 4.0
