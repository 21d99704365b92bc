"""The repository itself: whose packages are imported, what examples say, how long files are."""

from __future__ import annotations

import importlib
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from secure_fedmeta.config import load_config
from secure_fedmeta.pipeline import assemble, found_parties
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.templates import template_names, write_template
from tests.secure_fedmeta.federation import LOG_KEY

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("audit", "crypto", "privacy", "secure_fedmeta")
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
MAX_LINES = 400


@pytest.mark.parametrize("name", [*PACKAGES, "benchmarks", "tests"])
def test_a_generic_name_is_this_projects_package(name: str) -> None:
    """Other distributions install top-level packages of such names (opacus: benchmarks)."""
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).resolve() == ROOT / name / "__init__.py"


def test_the_wheel_names_exactly_the_four_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert sorted(wheel["packages"]) == list(PACKAGES)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_says_that_it_is_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads_and_assembles(path: Path) -> None:
    parts = assemble(load_config(path))
    found_parties(parts, bytes(32), Randomness(), log_key=LOG_KEY)
    assert parts.config.name == path.stem
    declared = parts.config.privacy.epsilon
    assert declared is not None
    assert parts.plan.worst_epsilon() <= declared
    assert parts.protocol.capabilities().hides_updates


def test_every_example_is_a_template_and_the_same(tmp_path: Path) -> None:
    assert tuple(path.stem for path in EXAMPLES) == template_names()
    for path in EXAMPLES:
        assert write_template(path.stem, tmp_path).read_bytes() == path.read_bytes()


def python_files() -> list[Path]:
    folders = (*PACKAGES, "benchmarks", "scripts", "tests/secure_fedmeta", "tests/contracts")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def test_no_file_is_too_long_to_be_read() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n")
        for path in python_files()
    }
    assert len(lengths) > 100
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_nothing_is_pickled_or_printed_outside_the_command_line() -> None:
    commands = ("cli", "cli_agent", "cli_compare", "cli_data", "cli_ledger", "cli_run", "cli_tune")
    allowed = {"audit/__main__.py", *(f"secure_fedmeta/{name}.py" for name in commands)}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            text, name = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
            assert "import pickle" not in text, name
            assert "torch.load(" not in text, name
            assert " print(" not in text or name in allowed, name


def test_everything_installed_is_locked_to_one_version() -> None:
    """What the product needs, and what that needs, at any depth: by the lock, and as locked."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in locked.items()}
    assert len(versions) == len(locked)
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in versions.values())
    left, seen = ["secure-fedmeta"], set()
    while left:
        name = canonicalize_name(left.pop())
        if name in seen:
            continue
        seen.add(name)
        for line in distribution(name).requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                left.append(needed.name)
    wrong = {
        name: (distribution(name).version.partition("+")[0], versions.get(name))
        for name in seen - {"secure-fedmeta"}
        if distribution(name).version.partition("+")[0] != versions.get(name)
    }
    assert len(seen) > 40
    assert wrong == {}
