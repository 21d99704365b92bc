"""Everything a config can get wrong is refused when the parts are put together, with its key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from crypto.secure_sum import SECURE_SUMS
from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.outcome import Release
from secure_fedmeta.pipeline import assemble, found_parties
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.tasks import ClientData, SourceInfo
from secure_fedmeta.tasks.sinusoid import SinusoidSource
from tests.secure_fedmeta.federation import (
    CLIENTS,
    LOG_KEY,
    Federation,
    PrivateSource,
    register,
    tiny,
)

INSECURE = {"secure_sum.protocol": "plain"}


@pytest.fixture(autouse=True)
def sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution declares sources of its own."""
    own = (BoastfulSource, RecordSource, SharedSource, NobodySource)
    register(monkeypatch, PrivateSource, *own)


class BoastfulSource(SinusoidSource):
    """Declares fewer tasks than it has."""

    name = "boastful"

    @property
    def info(self) -> SourceInfo:
        info = super().info
        return replace(info, task_bounds=dict.fromkeys(info.task_bounds, 4))


class RecordSource(SinusoidSource):
    name = "only-record"

    @property
    def info(self) -> SourceInfo:
        return replace(super().info, units=frozenset({"record", "client"}))


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"data.source": "sinusiod"}, "data.source", "Did you mean 'sinusoid'?"),
        ({"data.source": "os:getcwd"}, "data.source", "no such task source"),
        ({"data.options.cleints": 3}, None, "data.options.cleints = 3"),
        ({"model.name": "linaer"}, "model.name", "Did you mean 'linear'?"),
        ({"model.hidden": [4]}, "model.hidden", "a linear model has none"),
        ({"learner.algorithm": "mamlx"}, "learner.algorithm", "Did you mean 'maml'?"),
        ({"server.optimiser": "adan"}, "server.optimiser", "Did you mean 'adam'?"),
        ({"transport.name": "memroy"}, "transport.name", "Did you mean 'memory'?"),
        ({"secure_sum.protocol": "maskin"}, "secure_sum.protocol", "Did you mean 'masking'?"),
        (INSECURE, "secure_sum.protocol", "set secure_sum.allow_insecure = true"),
        ({"data.held_out": ["client-01x"]}, "data.held_out", "Did you mean 'client-001'?"),
        ({"data.held_out": ["client-000"] * 2}, "data.held_out", "names a client twice"),
        ({"privacy.min_survivors": 5}, "privacy.min_survivors", "only 4 clients train"),
        ({"privacy.max_units_per_client": 4}, "privacy.max_units_per_client", "set 5 or more"),
        ({"privacy.mechanism": "gaussian"}, "privacy", "shares of Gaussian noise do not add up"),
        ({"privacy.unit": "client", "privacy.rate": 0.5}, "privacy", "sees which clients take"),
        ({"privacy.unit": "client", "privacy.max_units_per_client": 5},
         "privacy.max_units_per_client", "sends one vector"),
        ({"data.source": "only-record"}, "privacy.unit", "can promise only client, record"),
        ({"privacy.noise": "local"}, "privacy", "set mechanism 'gaussian'"),
        ({"training.local_steps": 2}, "privacy", "set noise 'local'"),
        ({"training.local_lr": 0.5}, "privacy", "set noise 'local'"),
        ({"privacy.rate": 1e-9}, "privacy", "rate 1e-09"),
        ({"privacy.epsilon": 1e-300}, "privacy", "fewer value_bits"),
        ({"secure_sum.threshold": 4}, "privacy.min_survivors", "set 4 or more"),
        ({"secure_sum.threshold": 5}, "secure_sum.threshold", "only 4 clients train"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(
    changes: dict[str, object], key: str | None, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        assemble(tiny(changes))
    assert caught.value.key == key
    assert reason in str(caught.value)


def test_everybody_held_out_leaves_nobody_to_train() -> None:
    names = [f"client-{i:03d}" for i in range(CLIENTS)]
    with pytest.raises(ConfigError, match="only 2 clients train"):
        assemble(tiny({"data.held_out": names}))
    with pytest.raises(ConfigError, match="only 0 clients train"):
        assemble(tiny({"data.held_out": [*names, "held-out-000", "held-out-001"]}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"secure_sum.threshold": 2}, "2 \\* threshold > clients \\+ max_colluders"),
        ({"privacy.max_colluders": 2, "privacy.min_survivors": 4}, None),
        ({"privacy.max_colluders": 3, "privacy.min_survivors": 4}, "fewer than 2 honest vectors"),
        ({"data.options.clients": 2, "privacy.min_survivors": 2, "privacy.max_colluders": 0},
         "cohort of 2 clients; allowed: 3 or more"),
    ],
)  # fmt: skip
def test_thresholds_that_break_the_secure_sum_are_refused(
    changes: dict[str, object], reason: str | None
) -> None:
    parts = assemble(tiny(changes))
    if reason is None:
        found_parties(parts, bytes(32), Randomness(1), log_key=LOG_KEY)
        return
    with pytest.raises(ConfigError, match=reason) as caught:
        found_parties(parts, bytes(32), Randomness(1), log_key=LOG_KEY)
    assert caught.value.key == "secure_sum"


def test_beyond_100_clients_secrets_are_shared_with_neighbours() -> None:
    many = {"data.options.clients": 120, "data.options.persons": 1, "privacy.expected_units": 120}
    some = {**many, "privacy.max_colluders": 5, "privacy.min_survivors": 110}
    parts = assemble(tiny(some))
    assert parts.sharing == parts.protocol.sharing(120, 5, 110)
    assert parts.sharing.degree < 60
    found_parties(parts, bytes(32), Randomness(1), log_key=LOG_KEY)
    with pytest.raises(ConfigError, match="min_survivors is 70; allowed: 81 to 120") as caught:
        assemble(tiny({**many, "privacy.max_colluders": 40, "privacy.min_survivors": 70}))
    assert caught.value.key == "secure_sum"


def test_insecure_is_possible_if_asked_for_by_name() -> None:
    parts = assemble(tiny({**INSECURE, "secure_sum.allow_insecure": True}))
    assert not parts.protocol.capabilities().hides_updates


def test_a_source_that_breaks_its_own_bound_is_named() -> None:
    parts = assemble(tiny({"data.source": "boastful"}))
    with pytest.raises(DataError, match="'client-000' has 5 tasks, more than the 4"):
        found_parties(parts, bytes(32), Randomness(1), log_key=LOG_KEY)


def test_what_a_plan_is_made_of() -> None:
    parts = assemble(tiny({"privacy.max_units_per_client": 9}))
    plan = parts.plan
    assert (plan.clients, plan.min_survivors, plan.max_colluders) == (CLIENTS, 3, 1)
    assert (plan.rounds, plan.expected_units, plan.max_units_per_client) == (3, 20, 9)
    assert plan.dimension == parts.learner.spec.size == 2
    assert assemble(tiny()).plan.max_units_per_client == 5
    assert 3.0 - 0.02 < plan.worst_epsilon() <= 3.0


def test_a_noise_multiplier_replaces_epsilon() -> None:
    parts = assemble(tiny({"privacy.epsilon": None, "privacy.noise_multiplier": 2.5}))
    assert (parts.plan.epsilon, parts.plan.noise_multiplier) == (None, 2.5)


def test_who_trains_and_who_is_scored() -> None:
    parts = assemble(tiny())
    assert parts.held_out == ("held-out-000", "held-out-001")
    assert parts.training == tuple(f"client-{i:03d}" for i in range(CLIENTS))
    chosen = assemble(tiny({"data.held_out": ["client-001"], "privacy.min_survivors": 4}))
    assert chosen.held_out == ("client-001",)
    assert "client-001" not in chosen.training
    assert len(chosen.training) == CLIENTS + 1


def test_the_callers_own_module_and_loss() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
    parts = assemble(tiny(), module=module, loss="mse")
    assert parts.module is module
    assert parts.plan.dimension == 10
    assert torch.equal(parts.initial()[:3], module[0].weight.detach().ravel())
    with pytest.raises(ConfigError, match="BatchNorm1d"):
        assemble(tiny(), module=nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1)))


def test_parties_have_secrets_of_their_own() -> None:
    parts = assemble(tiny())
    parties = found_parties(parts, bytes(32), Randomness(), log_key=LOG_KEY)
    roster = parties.setting.roster
    assert [member.name for member in roster.members] == list(parts.training)
    assert len({member.public for member in roster.members} | {roster.aggregator}) == CLIENTS + 1
    assert parties.aggregator.public == roster.aggregator
    again = found_parties(parts, bytes(32), Randomness(), log_key=LOG_KEY)
    assert again.setting.roster.digest != roster.digest
    works = {id(client._work) for client in parties.clients.values()}
    assert len(works) == 1
    keys = set(parties.clients[1]._work._keys.values())  # type: ignore[attr-defined]
    assert len(keys) == CLIENTS


def test_a_seed_gives_the_same_parties() -> None:
    parts = assemble(tiny())
    digests = {
        found_parties(parts, bytes(32), Randomness(4), log_key=LOG_KEY).setting.roster.digest
        for _ in range(2)
    }
    assert len(digests) == 1


def test_the_ring_holds_the_worst_sum() -> None:
    parts = assemble(tiny())
    plan = parts.plan
    worst = plan.clients * plan.max_abs + 8 * plan.noise_std(plan.clients)
    assert worst < 2 ** (parts.ring.bits - 1)


def test_a_sum_that_no_ring_holds_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        assemble(tiny({"privacy.max_units_per_client": 2**31, "privacy.epsilon": 1e-8}))
    assert caught.value.key in ("privacy", "privacy.max_units_per_client")


COMPRESSED: dict[str, dict[str, object]] = {
    "bits": {"compression.value_bits": 8},
    "rotated": {"compression.value_bits": 8, "compression.rotate": True},
    "subset": {"compression.kind": "subset", "compression.keep": 0.4, "compression.rotate": True},
    "low-rank": {
        "compression.kind": "low-rank", "compression.keep": 0.4, "compression.rotate": True
    },
}  # fmt: skip
SMALL_NETWORK = {"model.name": "mlp", "model.hidden": [16]}


@pytest.mark.parametrize("changes", COMPRESSED.values(), ids=COMPRESSED.keys())
def test_every_secure_sum_gives_the_same_model_from_compressed_vectors(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """Bit-identical under one seed, with the sum's length and the charge those of the plan."""
    models = {}
    for name in SECURE_SUMS:
        federation = Federation(
            tmp_path_for(tmp_path, name),
            {
                **SMALL_NETWORK, **changes, "secure_sum.protocol": name,
                "secure_sum.allow_insecure": True, "privacy.max_colluders": 0,
            },
        )  # fmt: skip
        plan = federation.plan
        for index in (1, 2):
            assert isinstance(federation.round(index), Release)
        assert [terms.length for terms, _ in federation.spy.sums] == [plan.dimension] * 2
        assert {event.dimension for event in federation.events()} == {plan.dimension}
        federation.spy.check_sums()
        models[name] = federation.aggregator.model
    assert len(models) > 1
    reference = models.pop("plain")
    assert all(torch.equal(model, reference) for model in models.values())
    assert not torch.equal(reference, federation.parts.initial())


def tmp_path_for(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def test_fewer_bits_and_coordinates_make_a_smaller_ring_and_a_shorter_sum() -> None:
    whole = assemble(tiny(SMALL_NETWORK))
    narrow = assemble(tiny({**SMALL_NETWORK, **COMPRESSED["bits"]}))
    flat = assemble(tiny({**SMALL_NETWORK, **COMPRESSED["rotated"]}))
    part = assemble(tiny({**SMALL_NETWORK, **COMPRESSED["subset"]}))
    assert narrow.ring.bits <= whole.ring.bits - 4
    assert flat.ring.bits <= narrow.ring.bits + 1
    assert part.plan.dimension == 20 < part.plan.parameters == 49


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"compression.rotate": True}, "with 2 parameters"),
        (
            {"compression.kind": "subset", "compression.keep": 0.9, "data.options.clients": 4},
            "keeps them all",
        ),
    ],
)
def test_compression_that_does_not_fit_the_model_is_refused(
    changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        assemble(tiny(changes))
    assert caught.value.key == "compression"


class SharedSource(SinusoidSource):
    """A source that lets one person live in two clients."""

    name = "shared"

    def client(self, name: str) -> ClientData:
        own = super().client(name)
        blocks = tuple(replace(block, user="one") for block in own.blocks[:1]) + own.blocks[1:]
        return replace(own, blocks=blocks)


class NobodySource(SinusoidSource):
    """A source that promises users and has tasks of nobody in particular."""

    name = "nobody"

    def client(self, name: str) -> ClientData:
        own = super().client(name)
        return replace(own, blocks=tuple(replace(block, user=None) for block in own.blocks))


@pytest.mark.parametrize(
    ("source", "error", "reason"),
    [
        ("shared", ConfigError, "hold tasks of the same user, who would have two coins"),
        ("nobody", DataError, "not one user's alone"),
    ],
)
def test_users_that_no_client_can_answer_for_are_refused(
    source: str, error: type[Exception], reason: str
) -> None:
    parts = assemble(tiny({"data.source": source, "privacy.unit": "user"}))
    with pytest.raises(error, match=reason):
        found_parties(parts, bytes(32), Randomness(None), log_key=LOG_KEY)
    task = assemble(tiny({"data.source": source}))
    assert found_parties(task, bytes(32), Randomness(None), log_key=LOG_KEY).clients


@pytest.mark.parametrize("unit", ["record", "task", "user", "client"])
def test_every_unit_that_a_source_promises_can_be_planned(unit: str) -> None:
    plan = assemble(tiny({"privacy.unit": unit})).plan
    assert plan.unit == unit
    assert plan.max_units_per_client == (1 if unit == "client" else 5)
