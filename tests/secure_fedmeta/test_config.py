"""Settings: what is written reads back; what is wrong is named with what is allowed."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from secure_fedmeta.config import Config, load_config, parse_config
from secure_fedmeta.errors import ConfigError
from tests.secure_fedmeta.federation import settings, tiny

NAMES = st.text(string.ascii_letters + string.digits + "_.-", min_size=1, max_size=64)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
COUNTS = st.integers(1, 10**6)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300, allow_nan=False)
PROBABILITY = st.floats(0, 1, exclude_max=True)
SEED = st.integers(0, 2**63 - 1)
OPTION = st.one_of(st.booleans(), st.integers(-(2**62), 2**62), TEXT, st.lists(TEXT, max_size=3))


def section(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any subset of the settings of one section."""
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def privacy_sections(draw: st.DrawFn) -> dict[str, Any]:
    survivors = draw(st.integers(1, 1000))
    required = {
        draw(st.sampled_from(["epsilon", "noise_multiplier"])): draw(POSITIVE),
        "expected_units": draw(COUNTS),
        "min_survivors": survivors,
        "max_colluders": draw(st.integers(0, survivors - 1)),
    }
    extra = draw(
        section(
            unit=st.sampled_from(["record", "task", "user", "client"]),
            noise=st.sampled_from(["distributed", "local"]),
            mechanism=st.sampled_from(["skellam", "gaussian"]),
            rate=st.floats(0, 1, exclude_min=True),
            delta=st.floats(0, 1, exclude_min=True, exclude_max=True),
            clip=POSITIVE,
            max_units_per_client=COUNTS,
            person_units=st.integers(1, 1000),
        )
    )
    return {**extra, **required}


TREES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "data": st.fixed_dictionaries(
            {"source": TEXT},
            optional={
                "held_out": st.lists(TEXT, max_size=3),
                "options": st.dictionaries(TEXT, OPTION, max_size=3),
            },
        ),
        "privacy": privacy_sections(),
    },
    optional={
        "model": section(name=TEXT, hidden=st.lists(COUNTS, max_size=3), init_seed=SEED),
        "learner": section(algorithm=TEXT, inner_steps=COUNTS, inner_lr=POSITIVE),
        "server": section(optimiser=TEXT, lr=POSITIVE, average_from=COUNTS),
        "training": section(
            rounds=COUNTS, evaluate_every=COUNTS, on_abort=st.sampled_from(["continue", "stop"])
        ),
        "secure_sum": section(protocol=TEXT, threshold=COUNTS, allow_insecure=st.booleans()),
        "transport": section(name=TEXT, drop=PROBABILITY, delay=PROBABILITY, tamper=PROBABILITY),
        "compute": section(device=st.sampled_from(["auto", "cpu", "cuda"]), memory_mb=COUNTS),
        "evaluation": section(repeats=COUNTS, adapt_steps=COUNTS, adapt_lr=POSITIVE),
        "ledger": section(url=TEXT, population=NAMES),
        "not_private": st.fixed_dictionaries({"seed": SEED}),
    },
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def write(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "config.toml"
    path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    return path


def refusal(tree: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(tree)
    return caught.value


@given(tree=TREES)
def test_what_is_written_reads_back(folder: Path, tree: dict[str, Any]) -> None:
    first = load_config(write(folder, tree))
    path = folder / "again.toml"
    path.write_text(first.to_toml(), encoding="utf-8")
    second = load_config(path)
    assert second == first
    assert second.digest() == first.digest()


def paths(tree: dict[str, Any]) -> list[tuple[str, ...]]:
    """All sections of the config, the root among them; not the source's own options."""
    found: list[tuple[str, ...]] = [()]
    return found + [(key,) for key, value in tree.items() if isinstance(value, dict)]


@given(tree=TREES, data=st.data())
def test_an_unknown_key_anywhere_is_refused(tree: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(paths(tree)))
    model: type[BaseModel] = Config
    table = tree
    for part in path:
        table = table[part]
        annotation = model.model_fields[part].annotation
        members = (annotation, *getattr(annotation, "__args__", ()))
        model = next(m for m in members if isinstance(m, type) and issubclass(m, BaseModel))
    key = data.draw(NAMES.filter(lambda name: name not in model.model_fields))
    table[key] = 1
    error = refusal(tree)
    assert error.key == ".".join((*path, key))
    assert "no such setting" in error.reason
    assert all(name in error.reason for name in model.model_fields)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("training.rounds", "3", "valid integer"),
        ("training.rounds", True, "valid integer"),
        ("training.rounds", 3.0, "valid integer"),
        ("training.rounds", 0, "greater than or equal to 1"),
        ("training.on_abort", "retry", "'continue' or 'stop'"),
        ("server.lr", "fast", "valid number"),
        ("server.lr", 0.0, "greater than 0"),
        ("server.lr", float("inf"), "finite number"),
        ("server.lr", float("nan"), "finite number"),
        ("secure_sum.allow_insecure", "yes", "valid boolean"),
        ("secure_sum.allow_insecure", 1, "valid boolean"),
        ("transport.drop", 1.0, "less than 1"),
        ("transport.drop", -0.1, "greater than or equal to 0"),
        ("model.hidden", 16, "must be an array"),
        ("model.hidden", "16", "must be an array"),
        ("data.held_out", "client-000", "must be an array"),
        ("privacy.delta", 0.0, "greater than 0"),
        ("privacy.delta", 1.0, "less than 1"),
        ("privacy.rate", 1.5, "less than or equal to 1"),
        ("privacy.unit", "person", "'record', 'task', 'user' or 'client'"),
        ("privacy.epsilon", -1.0, "greater than 0"),
        ("ledger.population", "a/b", "match pattern"),
        ("not_private.seed", -1, "greater than or equal to 0"),
        ("not_private.seed", 2**63, "less than"),
        ("name", "my run", "match pattern"),
        ("name", "", "match pattern"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(key: str, value: object, allowed: str) -> None:
    error = refusal(settings({key: value}))
    assert error.key == key
    assert error.value == value or value != value
    assert allowed in error.reason
    assert f"{key} = {value!r}" in str(error)


def test_an_element_is_named_by_its_position() -> None:
    assert refusal(settings({"model.hidden": [4, "x"]})).key == "model.hidden.1"


def test_a_section_must_be_a_section() -> None:
    error = refusal(settings() | {"server": 3})
    assert (error.key, error.reason) == ("server", "must be a section of settings")
    error = refusal(settings({"data.options": 3}))
    assert (error.key, error.reason) == ("data.options", "must be a section of settings")


@pytest.mark.parametrize("key", ["name", "data.source", "privacy.expected_units", "privacy"])
def test_a_missing_setting_is_named(key: str) -> None:
    error = refusal(settings({key: None}))
    assert (error.key, error.reason) == (key, "this setting is required")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"privacy.noise_multiplier": 1.0}, "exactly one of epsilon and noise_multiplier"),
        ({"privacy.epsilon": None}, "exactly one of epsilon and noise_multiplier"),
        ({"privacy.max_colluders": 3}, "max_colluders must be below min_survivors"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, object], reason: str) -> None:
    error = refusal(settings(changes))
    assert error.key == "privacy"
    assert error.reason.startswith(("set ", "max_colluders"))
    assert reason in error.reason


@pytest.mark.parametrize(
    ("changes", "key", "reason"),
    [
        ({"keep": 0.5}, "compression", "without a kind: set kind to 'subset' or 'low-rank'"),
        ({"kind": "subset"}, "compression", "needs the fraction of coordinates to keep"),
        ({"kind": "low-rank", "keep": 0.5}, "compression", "set rotate = true"),
        ({"kind": "subset", "keep": 0.0}, "compression.keep", "greater than 0"),
        ({"kind": "subset", "keep": 1.0}, "compression.keep", "less than 1"),
        ({"kind": "sparse", "keep": 0.5}, "compression.kind", "'subset' or 'low-rank'"),
        ({"value_bits": 7}, "compression.value_bits", "greater than or equal to 8"),
        ({"value_bits": 21}, "compression.value_bits", "less than or equal to 20"),
    ],
)
def test_compression_that_contradicts_itself(
    changes: dict[str, object], key: str, reason: str
) -> None:
    error = refusal(settings({f"compression.{name}": value for name, value in changes.items()}))
    assert error.key == key
    assert reason in error.reason


def test_the_noise_may_be_given_instead_of_epsilon(tmp_path: Path) -> None:
    tree = settings({"privacy.epsilon": None, "privacy.noise_multiplier": 2.0})
    assert load_config(write(tmp_path, tree)).privacy.noise_multiplier == 2.0


def test_a_near_miss_is_suggested() -> None:
    assert "Did you mean 'epsilon'?" in str(refusal(settings({"privacy.epsilom": 2.0})))
    assert "Did you mean 'privacy'?" in str(refusal(settings() | {"privcy": {}}))
    assert "Did you mean" not in str(refusal(settings() | {"zzzz": 1}))
    assert "Did you mean 'seed'?" in str(refusal(settings() | {"not_private": {"seeds": 1}}))


def test_every_message_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, settings({"training.rounds": 0}))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.file == str(path)
    assert str(caught.value).startswith(f"{path}: training.rounds = 0: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read: No such file"), (b"a = ", "valid TOML"), (b"\xff", "valid TOML")],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, settings())
    overrides = [
        "training.rounds=7",
        "learner.algorithm=anil",
        'model.name = "linear"',
        "model.hidden=[]",
        "data.options.persons=9",
        "ledger.population=p",
    ]
    config = load_config(path, overrides)
    assert config.training.rounds == 7
    assert config.learner.algorithm == "anil"
    assert config.model.hidden == ()
    assert config.data.options["persons"] == 9
    assert config.ledger.population == "p"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("training.rounds", "write --set section.key=value"),
        ("=3", "write --set section.key=value"),
        ("training..rounds=3", "write --set section.key=value"),
        ("name.first=x", "name is a value, not a section"),
        ("training.rounds=many", "training.rounds = 'many'"),
        ("training.round=3", "Did you mean 'rounds'?"),
    ],
)
def test_overrides_that_are_wrong(tmp_path: Path, override: str, reason: str) -> None:
    path = write(tmp_path, settings())
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    assert reason in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_setting_is_in_the_digest() -> None:
    config = tiny()
    changed = {"name": "other", "server.lr": 0.051, "evaluation.repeats": 2, "transport.drop": 0.1}
    digests = {tiny({key: value}).digest() for key, value in changed.items()} | {config.digest()}
    assert len(digests) == 1 + len(changed)
    assert len(config.digest()) == 32
    assert tiny({"server.lr": 0.05}).digest() == config.digest()  # the default, written out


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        tiny().privacy.epsilon = 9.0  # type: ignore[misc]
