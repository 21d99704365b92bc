"""`fedmeta check`: what a person sees of their own data, and what leaves no terminal."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from secure_fedmeta import cli
from secure_fedmeta.config import load_config
from secure_fedmeta.console_data import render_check
from secure_fedmeta.data_check import check_data
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.tasks import Site
from secure_fedmeta.training import run
from tests.secure_fedmeta.federation import default_ledger, tiny
from tests.secure_fedmeta.own_tables import options, rows, site, source

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "examples" / "own_table"
BANKS = ("north", "south", "west")
CONFIDENTIAL = "data.options.public=false"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A copy of the example's config, its table beside it."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "own")) / "own_table.toml"


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["fedmeta", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


def test_the_example_s_table_is_what_its_script_writes() -> None:
    path = ROOT / "scripts" / "build_own_table.py"
    spec = importlib.util.spec_from_file_location("build_own_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table() == (EXAMPLE / "loans.csv").read_bytes()


def test_the_check_counts_what_a_run_would_use(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "check", own, "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == 0
    assert (found["rows"], found["notice"], found["unit"]) == (2400, None, "task")
    parts = {client["name"]: client["part"] for client in found["clients"]}
    assert parts["oak"] == "held out"
    assert list(parts.values()).count("trains") == 6
    assert sum(client["tasks"] for client in found["clients"]) == found["tasks"]
    assert all(client["tasks"] <= client["most_tasks"] == 21 for client in found["clients"])
    lines = (EXAMPLE / "loans.csv").read_text().splitlines()[1:]
    incomes = [line.split(",")[2] for line in lines]
    assert found["missing"] == {"income": incomes.count("")}
    assert found["clipped"] == {"income": sum(float(i or 0) > 120_000 for i in incomes)}
    assert found["lacking"]["user"].endswith("declare data.options.user")


@pytest.mark.parametrize(("inputs", "rest"), [(40, ""), (784, " and 744 more")])
def test_the_names_of_pixels_do_not_fill_the_screen(own: Path, inputs: int, rest: str) -> None:
    found = check_data(load_config(own, []), site=Site(own.parent))
    shown = Console(record=True, width=10_000, file=io.StringIO())
    shown.print(render_check({**found, "inputs": [f"grey {n}" for n in range(inputs)]}))
    line = next(line for line in shown.export_text().splitlines() if line.startswith("Inputs"))
    assert line.rstrip().startswith(f"Inputs ({inputs}): grey 0, grey 1,")
    assert f"grey 39{rest}" in line
    assert "grey 40" not in line


def test_confidential_figures_come_with_a_warning(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "check", own, "--set", CONFIDENTIAL)
    shown = " ".join(out.split())
    assert code == 0
    assert shown.startswith("For your eyes only: these figures are exact statistics")
    assert "income, income missing" in shown
    assert "Not allowed: user: no column" in shown


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("L0007", "L0003"), "loans.csv, line 8, loan = 'L0003'"),
        (("rent", "rented"), "home = 'rented': allowed is own, rent, other"),
    ],
)
def test_what_a_run_would_refuse_ends_with_exit_code_2(
    own: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], expected: str
) -> None:
    table = own.parent / "loans.csv"
    table.write_text(table.read_text().replace(*change, 1))
    code, out, err = call(capsys, "check", own)
    assert (code, out) == (2, "")
    assert expected in err


def test_a_unit_without_its_column_names_config_key_and_reason(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = call(capsys, "check", own, "--set", "privacy.unit=user")
    assert code == 2
    assert "own_table.toml: privacy.unit = 'user'" in err
    assert "declare data.options.user" in err


def test_plans_and_searches_find_the_table_beside_the_config(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "plan", own, "--json")
    assert (code, json.loads(out)["clients"]) == (0, 6)
    short = ["training.rounds=1", "server.average_from=1", "evaluation.repeats=1"]
    search = ['tune.validation=["larch"]', "tune.settings={learner={inner_lr=[0.1]}}"]
    sets = [word for setting in (*short, *search) for word in ("--set", setting)]
    code, out, err = call(capsys, "tune", own, "--json", "--out", tmp_path / "runs", *sets)
    assert (code, err) == (0, "")
    assert json.loads(out)["looked_at"]["validation_clients"] == ["larch"]


def test_a_person_in_two_clients_is_found_before_the_run(tmp_path: Path) -> None:
    cells = [{**row, "bank": bank} for bank in BANKS for row in rows()[:40]]
    declared = {"user": "person", "records": None, "max_tasks": dict.fromkeys(BANKS, 5)}
    source(tmp_path, cells, **declared)
    data = {"source": "table", "options": options(**declared)}
    with pytest.raises(ConfigError, match="hold tasks of the same user"):
        check_data(tiny({"data": data, "privacy.unit": "user"}), site=site(tmp_path))
    found = check_data(tiny({"data": data}), site=site(tmp_path))
    assert [client["tasks"] for client in found["clients"]] == [5, 5, 5]


def test_counts_of_confidential_data_are_in_the_check_and_in_no_report(
    own: Path, tmp_path: Path
) -> None:
    default_ledger().grant("people", unit="task", epsilon=3, delta=1e-5, approver="board")
    changes = [CONFIDENTIAL, "ledger.population=people", "training.rounds=1"]
    config = load_config(own, [*changes, "evaluation.repeats=1", "evaluation.local_steps=1"])
    result = run(config, out=tmp_path / "runs", site=Site(own.parent))
    assert result.status == "completed"
    assert set(result.report["data"]) == {"source", "training_clients", "public"}
    written = [path for path in result.directory.rglob("*") if path.is_file()]
    assert len(written) > 5
    for path in written:
        assert str(tmp_path).encode() not in path.read_bytes(), path
