"""Names and options: what a config may say, and how it learns what is wrong."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

import secure_fedmeta.registry
import secure_fedmeta.tasks.catalogue
import secure_fedmeta.tasks.registry
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.registry import Registry
from secure_fedmeta.tasks import SOURCES, SourceClass, SourceOptions, build_source, check_options
from secure_fedmeta.tasks.catalogue import catalogue
from secure_fedmeta.tasks.registry import ENTRY_POINT_GROUP
from secure_fedmeta.tasks.sinusoid import SinusoidOptions
from tests.secure_fedmeta.federation import PrivateSource


def test_built_in_sources() -> None:
    assert {"credit", "heart", "lending", "migraine", "sinusoid", "thyroid"} <= set(SOURCES.names())
    assert build_source("credit", {}).name == "credit"
    assert build_source("sinusoid", {"clients": 1, "persons": 1}).name == "sinusoid"


def test_an_unknown_source_hints_at_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'credit'"):
        check_options("credits", {})


def test_options_are_checked_without_reading_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("secure_fedmeta.tasks.shipped.ShippedFile.read")
    assert check_options("credit", {"records_per_block": 20}).model_dump() == {
        "records_per_block": 20,
        "k_support": 5,
        "k_query": 5,
        "metric": "auc",
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"record_per_block": 20}, r"data\.options\.record_per_block = 20"),
        ({"records_per_block": "20"}, r"data\.options\.records_per_block = '20'"),
        ({"records_per_block": 14.0}, r"data\.options\.records_per_block = 14\.0"),
        ({"records_per_block": True}, r"data\.options\.records_per_block = True"),
        ({"records_per_block": 1}, "greater than or equal to 2"),
        ({"k_support": 0}, "greater than or equal to 1"),
        ({"k_query": -1}, "allowed keys: records_per_block, k_support, k_query"),
    ],
)
def test_bad_options_name_key_value_and_what_is_allowed(
    options: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_options("credit", options)


def test_every_bad_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data\.options\.clients = 0.*data\.options\.person = 3"):
        check_options("sinusoid", {"clients": 0, "person": 3})


def test_options_are_frozen() -> None:
    options = check_options("sinusoid", {})
    with pytest.raises(ValueError, match="frozen"):
        options.clients = 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "works"),
    [
        ("secure_fedmeta.tasks.sinusoid:SinusoidSource", True),
        ("secure_fedmeta.tasks.sinusoid:SinusoidOptions", False),
        ("secure_fedmeta.tasks.blocks:cut", False),
    ],
)
def test_an_entry_point_adds_a_source(
    target: str, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    built_in = SOURCES.names()
    point = EntryPoint("waves", target, ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        secure_fedmeta.registry,
        "entry_points",
        lambda *, group: EntryPoints([point]).select(group=group),
    )
    assert SOURCES.names() == tuple(sorted((*built_in, "waves")))
    if works:
        assert check_options("waves", {"clients": 2}) == SinusoidOptions(clients=2)
    else:
        with pytest.raises(ConfigError, match="names no task source class"):
            check_options("waves", {})


def test_the_catalogue_tells_no_counts_of_confidential_data_and_asks_for_no_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Needs(SourceOptions):
        path: str

    class Files(PrivateSource):
        Options = Needs

    shown: Registry[SourceClass] = Registry(
        "task source", "data.source", "none", {"own": PrivateSource, "files": Files}
    )
    monkeypatch.setattr(secure_fedmeta.tasks.catalogue, "SOURCES", shown)
    monkeypatch.setattr(secure_fedmeta.tasks.registry, "SOURCES", shown)
    own, files = catalogue()
    assert files == dict.fromkeys(files) | {"name": "files"}
    assert own["name"] == "own"
    assert own["units"]
    assert own["rows"] is own["clients"] is own["tasks"] is None
