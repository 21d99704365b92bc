"""Errors tell what to change; registries know names, entry points and the nearest match."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

import secure_fedmeta.registry
from secure_fedmeta.errors import ConfigError, FedmetaError, unknown_name
from secure_fedmeta.registry import Registry

GROUP = "secure_fedmeta.things"


def registry() -> Registry[object]:
    return Registry("thing", "section.thing", GROUP, {"hammer": 1, "saw": 2})


def declare(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str]) -> None:
    """Pretend that installed distributions declare these entry points."""
    declared = EntryPoints(EntryPoint(name, value, GROUP) for name, value in points)
    monkeypatch.setattr(
        secure_fedmeta.registry, "entry_points", lambda group: declared.select(group=group)
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("is odd"), "is odd"),
        (ConfigError("is odd", key="a.b"), "a.b: is odd"),
        (ConfigError("is odd", key="a.b", value=3), "a.b = 3: is odd"),
        (ConfigError("is odd", key="a.b", value=0, file="x.toml"), "x.toml: a.b = 0: is odd"),
        (ConfigError("is odd", file="x.toml"), "x.toml: is odd"),
    ],
)
def test_what_a_config_error_says(error: ConfigError, text: str) -> None:
    assert str(error) == text
    assert isinstance(error, FedmetaError)


def test_in_file_keeps_the_rest() -> None:
    error = ConfigError("is odd", key="a.b", value="v").in_file("x.toml")
    assert (error.reason, error.key, error.value, error.file) == ("is odd", "a.b", "v", "x.toml")


def test_an_unknown_name_comes_with_the_nearest_known_one() -> None:
    error = unknown_name("learner", "mamls", ["anil", "maml"], key="learner.algorithm")
    assert str(error) == (
        "learner.algorithm = 'mamls': no such learner. Did you mean 'maml'? Known: anil, maml"
    )
    assert "Did you mean" not in str(unknown_name("learner", "zz", ["maml"], key="k"))
    assert str(unknown_name("learner", "zz", [], key="k")).endswith("Known: none")


def test_built_in_names() -> None:
    assert registry().names() == ("hammer", "saw")
    assert registry().get("saw") == 2


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'hammer'") as caught:
        registry().get("hamer")
    assert (caught.value.key, caught.value.value) == ("section.thing", "hamer")


def test_an_import_string_is_never_followed() -> None:
    with pytest.raises(ConfigError, match="no such thing"):
        registry().get("os:getcwd")


def test_an_entry_point_adds_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, ("zip", "json:dumps"), ("axe", "json:loads"))
    assert registry().names() == ("hammer", "saw", "axe", "zip")
    assert getattr(registry().get("axe"), "__name__", "") == "loads"


def test_a_name_declared_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, ("axe", "json:loads"), ("axe", "json:dumps"))
    with pytest.raises(ConfigError, match="2 installed distributions declare this thing"):
        registry().get("axe")


def test_a_built_in_name_cannot_be_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    declare(monkeypatch, ("saw", "json:loads"))
    assert registry().get("saw") == 2
    assert registry().names() == ("hammer", "saw")
