from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import EventRefused
from privacy.events import (
    DiscreteGaussianRound,
    Event,
    GaussianSteps,
    NonPrivate,
    SkellamRound,
    event_from_json,
)
from privacy.rdp import l1_bound
from privacy.unit import RELATION_OF, Relation, Unit
from tests.privacy.plans import with_noise

EVENT = with_noise().worst_event()


STEPS = GaussianSteps(
    unit=Unit.TASK,
    relation=Relation.ADD_REMOVE,
    rate=0.01,
    noise_multiplier=1.5,
    steps=300,
    person_units=4,
)


@st.composite
def rounds(draw: st.DrawFn) -> Event:
    l2, dimension = draw(st.integers(1, 2**20)), draw(st.integers(1, 2**20))
    survivors = draw(st.integers(2, 1000))
    unit = draw(st.sampled_from(Unit))
    turns = draw(st.none() | st.integers(1, 100)) if unit is Unit.CLIENT else None
    return draw(st.sampled_from([SkellamRound, DiscreteGaussianRound]))(
        unit=unit,
        relation=RELATION_OF[unit],
        rate=1.0 if unit is Unit.CLIENT else draw(st.floats(2.0**-20, 1.0)),
        l2=l2,
        l1=l1_bound(l2, dimension),
        share_variance=draw(st.floats(0.25, 1e15)),
        survivors=survivors,
        max_colluders=draw(st.integers(0, survivors - 1)),
        clients=survivors + draw(st.integers(0, 10)),
        dimension=dimension,
        person_units=draw(st.integers(1, 1000)),
        max_participations=turns,
    )


@st.composite
def steps(draw: st.DrawFn) -> Event:
    unit = draw(st.sampled_from([Unit.TASK, Unit.RECORD]))
    return GaussianSteps(
        unit=unit,
        relation=RELATION_OF[unit],
        rate=draw(st.floats(2.0**-20, 1.0)),
        noise_multiplier=draw(st.floats(1e-3, 1e6)),
        steps=draw(st.integers(1, 2**53 - 1)),
        person_units=draw(st.integers(1, 1000)),
    )


@given(rounds() | steps())
def test_json_reads_back_to_the_same_event(event: Event) -> None:
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event


def test_the_json_form_is_fixed() -> None:
    assert EVENT.to_json() == {
        "kind": "skellam_round",
        "unit": "task",
        "relation": "add_remove",
        "rate": "1.0",
        "l2": 4099,
        "l1": 22451,
        "share_variance": repr((8.0 * 4099) ** 2 / 7),
        "survivors": 8,
        "max_colluders": 1,
        "clients": 10,
        "dimension": 30,
        "person_units": 4,
        "max_participations": None,
    }
    assert STEPS.to_json() == {
        "kind": "gaussian_steps",
        "unit": "task",
        "relation": "add_remove",
        "rate": "0.01",
        "noise_multiplier": "1.5",
        "steps": 300,
        "person_units": 4,
    }


def test_a_non_private_event_reads_back() -> None:
    event = NonPrivate(Unit.TASK, Relation.ADD_REMOVE, "noise switched off")
    assert event_from_json(event.to_json()) == event
    with pytest.raises(EventRefused, match="reason"):
        event_from_json({**event.to_json(), "reason": 3})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "gaussian_round"),
        ("kind", None),
        ("kind", ["skellam_round"]),
        ("unit", "record"),
        ("unit", "person"),
        ("unit", 1),
        ("relation", "replace_one"),
        ("relation", None),
        ("rate", "0.0"),
        ("rate", "-0.5"),
        ("rate", "1.5"),
        ("rate", "1e-07"),
        ("rate", 1.0),
        ("rate", "1"),
        ("rate", "nan"),
        ("l2", 0),
        ("l2", -4099),
        ("l2", 4099.0),
        ("l2", "4099"),
        ("l2", True),
        ("l1", 22450),
        ("l1", 1),
        ("l1", 2**53),
        ("share_variance", "0.0"),
        ("share_variance", "-1.0"),
        ("share_variance", "inf"),
        ("share_variance", "NaN"),
        ("share_variance", "1e400"),
        ("share_variance", "1.50"),
        ("share_variance", "1_0.0"),
        ("share_variance", " 1.0"),
        ("share_variance", "x"),
        ("share_variance", 153.0),
        ("survivors", 11),
        ("survivors", 1),
        ("survivors", 0),
        ("max_colluders", -1),
        ("max_colluders", 8),
        ("clients", 7),
        ("dimension", 31),
        ("dimension", 0),
        ("person_units", 0),
        ("person_units", 1001),
        ("max_participations", 3),
        ("max_participations", 0),
        ("max_participations", "3"),
    ],
)
def test_anything_else_is_refused(field: str, value: Any) -> None:
    with pytest.raises(EventRefused):
        event_from_json({**EVENT.to_json(), field: value})


def test_a_single_survivor_is_refused() -> None:
    """It would know all of the noise; no number of colluders makes that private."""
    body = {**EVENT.to_json(), "max_colluders": 0}
    assert event_from_json({**body, "survivors": 2})
    with pytest.raises(EventRefused, match="1 survivors: allowed is more than the 1"):
        event_from_json({**body, "survivors": 1})


def test_missing_and_additional_fields_are_refused() -> None:
    body = EVENT.to_json()
    for name in body:
        with pytest.raises(EventRefused):
            event_from_json({k: v for k, v in body.items() if k != name})
    with pytest.raises(EventRefused, match="exactly the fields"):
        event_from_json({**body, "note": "x"})


def test_an_event_cannot_be_made_with_less_than_its_bounds() -> None:
    with pytest.raises(EventRefused, match="share_variance"):
        SkellamRound.from_json({**EVENT.to_json(), "share_variance": "inf"})
    for changed in ({"share_variance": float("inf")}, {"share_variance": -1.0}):
        fields = {**EVENT.__dict__, **changed}
        with pytest.raises(EventRefused, match="share_variance"):
            SkellamRound(**fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise_multiplier", "0.0"),
        ("noise_multiplier", "-1.0"),
        ("noise_multiplier", "inf"),
        ("noise_multiplier", "nan"),
        ("noise_multiplier", 1.5),
        ("steps", 0),
        ("steps", 1.0),
        ("steps", True),
        ("rate", "0.0"),
        ("unit", "user"),
        ("unit", "client"),
        ("unit", "record"),
        ("person_units", 0),
        ("l2", 4),
    ],
)
def test_strange_steps_are_refused(field: str, value: Any) -> None:
    with pytest.raises(EventRefused):
        event_from_json({**STEPS.to_json(), field: value})


@pytest.mark.parametrize("unit", Unit)
def test_each_unit_has_one_relation(unit: Unit) -> None:
    """Bounds under another relation are another claim; an event cannot mix them up."""
    fields = {**EVENT.__dict__, "unit": unit, "relation": RELATION_OF[unit]}
    assert SkellamRound(**fields).unit is unit
    for relation in set(Relation) - {RELATION_OF[unit]}:
        with pytest.raises(EventRefused, match="allowed are record under replace_one"):
            SkellamRound(**{**fields, "relation": relation})


def test_a_client_s_participation_is_seen_and_never_amplified() -> None:
    fields = {**EVENT.__dict__, "unit": Unit.CLIENT, "relation": Relation.ZERO_OUT}
    assert SkellamRound(**{**fields, "max_participations": 3}).max_participations == 3
    with pytest.raises(EventRefused, match="sees which clients take part"):
        SkellamRound(**{**fields, "rate": 0.5})
    with pytest.raises(EventRefused, match="secret coins cannot be capped"):
        SkellamRound(**{**EVENT.__dict__, "rate": 0.5, "max_participations": 3})


def test_discrete_gaussian_shares_below_the_proved_size_are_refused() -> None:
    fields = {**EVENT.__dict__, "share_variance": 0.25}
    assert DiscreteGaussianRound(**fields).kind == "discrete_gaussian_round"
    assert SkellamRound(**{**fields, "share_variance": 0.1})
    with pytest.raises(EventRefused, match=r"bounded from 0\.25 on"):
        DiscreteGaussianRound(**{**fields, "share_variance": 0.2499})
