"""`fedmeta plan`: known values both ways round, hopeless settings, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import tomli_w

from privacy.accountant import Adversary
from privacy.errors import PlanRefused
from secure_fedmeta import cli, planning
from secure_fedmeta.pipeline import assemble
from tests.secure_fedmeta.federation import settings, tiny


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """`fedmeta plan` in this process: exit code, stdout, stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fedmeta", "plan", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return int(ended.value.code or 0), captured.out, captured.err


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def gaussian(rate: float, z: float, rounds: int, delta: float) -> tuple[str, ...]:
    options = {"rate": rate, "noise-multiplier": z, "rounds": rounds, "delta": delta}
    pairs = [(f"--{name}", str(value)) for name, value in options.items()]
    return ("--mechanism", "gaussian", *(word for pair in pairs for word in pair))


# (q, z, T, delta) -> PRV, RDP, PLD, PLD of one replaced record
GOLDEN = [
    (0.01, 1, 1000, 1e-5, 1.838, 2.101, 1.828, 2.84),
    (0.1, 1, 100, 1e-5, 7.057, 7.899, 7.047, 10.52),
    (0.25, 2, 200, 1e-4, 8.407, 9.228, 8.397, 18.22),
    (1, 10, 100, 1e-5, 4.387, 4.729, 4.377, 10.0),
]


@pytest.mark.parametrize(("rate", "z", "rounds", "delta", "prv", "rdp", "pld", "record"), GOLDEN)
def test_epsilon_of_a_noise(
    capsys: pytest.CaptureFixture[str],
    rate: float,
    z: float,
    rounds: int,
    delta: float,
    prv: float,
    rdp: float,
    pld: float,
    record: float,
) -> None:
    found = planned(capsys, *gaussian(rate, z, rounds, delta), "--person-units", "1")
    for row in found["adversaries"].values():
        shown = row["epsilon"]
        assert [shown["prv"], shown["rdp"], shown["pld"]] == pytest.approx(
            [prv, rdp, pld], abs=6e-4
        )
        assert row["claim"] == ("exact" if rate == 1 else "prv")
        assert row["record"] == pytest.approx(record, abs=6e-3)
    assert found["adversaries"].keys() == {name.value for name in Adversary}


def test_epsilon_of_a_record_and_of_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    words = (*gaussian(0.25, 2, 200, 1e-4), "--unit", "record", "--adversary", "aggregator")
    found = planned(capsys, *words)
    (row,) = found["adversaries"].values()
    assert row["epsilon"][row["claim"]] == pytest.approx(18.22, abs=6e-3) == row["record"]
    assert found["relation"] == "replace_one"
    person = planned(capsys, *gaussian(0.04, 1, 500, 1e-5), "--person-units", "2")
    assert person["adversaries"]["recipients"]["person"] == pytest.approx(13.46, abs=6e-3)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--mechanism", "discrete-gaussian"),
        ("--unit", "record"),
        ("--unit", "user", "--tasks-per-user", "3"),
        ("--unit", "client", "--max-participations", "5"),
        ("--rate", "0.1", "--min-survivors", "7", "--max-colluders", "2"),
        ("--mechanism", "gaussian", "--rate", "0.1"),
        ("--mechanism", "gaussian", "--unit", "record"),
    ],
    ids=" ".join,
)
def test_noise_for_a_target(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    """The noise that comes out, asked about again, claims just less than the target."""
    found = planned(capsys, *words, "--target-epsilon", "3", "--rounds", "30")
    assert 2.98 < found["claim"] <= 3.0
    z = repr(found["noise_multiplier"])
    again = planned(capsys, *words, "--noise-multiplier", z, "--rounds", "30")
    assert again["claim"] == found["claim"]
    assert again["adversaries"] == found["adversaries"]


def test_integer_noise_is_claimed_by_divergence_beside_a_gaussian(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The z that gives Gaussian noise epsilon 3 gives 3.25 under the Skellam bound."""
    found = planned(capsys, "--noise-multiplier", "9.3", "--rounds", "30", "--rate", "1")
    for row in found["adversaries"].values():
        assert row["claim"] == "rdp"
        assert row["epsilon"]["gaussian_reference_exact"] < row["epsilon"]["rdp"]
        assert {name for name in row["epsilon"] if name != "rdp"} <= {
            f"gaussian_reference_{name}" for name in ("exact", "prv", "rdp")
        }


def test_a_config_is_planned_for_as_it_would_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(tomli_w.dumps(settings()))
    found = planned(capsys, str(path))
    plan = assemble(tiny()).plan
    assert found["claim"] == plan.worst_epsilon()
    assert (found["dimension"], found["clients"]) == (plan.dimension, plan.clients)
    for words in (("--rounds", "3"), ("--noise-multiplier", "1")):
        code, _, err = run(capsys, str(path), *words)
        assert code == 2
        assert f"{words[0]}: stands beside a config" in err
    path.write_text(tomli_w.dumps(settings({"privacy.rate": 1e-9})))
    code, _, err = run(capsys, str(path))
    assert code == 2
    assert "tiny.toml" in err
    assert "rate 1e-09" in err


def test_what_a_person_reads(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "--target-epsilon", "3", "--dimension", "1000000", "--expected-units", "50"
    )
    text = " ".join(out.split())
    assert code == 0
    assert "Verdict: hopeless. Even if every unit pointed the same way" in text
    assert "* the claim" in text
    assert "one person who makes up 2 whole units" in text
    assert "Gauss: Gaussian noise of the same size, for comparison only" in text


@pytest.mark.parametrize(
    ("units", "level"), [("50", "hopeless"), ("1000", "hard"), ("1000000", "workable")]
)
def test_the_verdict_compares_noise_and_signal(
    capsys: pytest.CaptureFixture[str], units: str, level: str
) -> None:
    """z 15, 12 clients of which 10 carry the noise: sqrt(d n/(n-t)) z / units, over sqrt(T)."""
    found = planned(
        capsys, "--noise-multiplier", "15", "--dimension", "10000", "--expected-units", units,
        "--clients", "12", "--max-colluders", "2", "--rounds", "16",
    )  # fmt: skip
    expected = 100 * math.sqrt(12 / 10) * 15 / int(units)
    noise = found["noise"]
    assert noise["over_signal"] == pytest.approx(expected, rel=2e-3)
    assert noise["over_signal_in_all_rounds"] == pytest.approx(expected / 4, rel=2e-3)
    assert noise["norm"] == pytest.approx(100 * noise["per_coordinate"])
    assert found["verdict"]["level"] == level


def test_the_curves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ("--target-epsilon", "3", "--rounds", "20", "--plots", str(tmp_path / "new"))
    paths = [Path(path) for path in planned(capsys, *words)["plots"]]
    assert [path.name for path in paths] == ["epsilon.svg", "cohort.svg"]
    for path in paths:
        assert ET.parse(path).getroot().tag.endswith("svg")  # noqa: S314
    first = [path.read_bytes() for path in paths]
    planned(capsys, *words)
    assert first == [path.read_bytes() for path in paths]


def test_curves_that_cannot_be_drawn_are_refused_by_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    code, _, told = run(capsys, "--noise-multiplier", "8", "--plots", str(taken))
    assert code == 2
    assert f"--plots = '{taken}'" in told
    assert "name a folder that you may write to" in told


@pytest.mark.parametrize("mechanism", ["skellam", "gaussian"])
def test_the_curve_ends_at_the_claim(mechanism: str) -> None:
    found = planning.outlook(request(mechanism=mechanism, rounds=20))
    assert found.after(20).worst == found.spend().worst
    assert found.after(5).worst < found.after(20).worst


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--min-survivors 99", "--min-survivors 99 is not an integer from 2 to 10"),
        ("--max-colluders 50", "--max-colluders 50 is not an integer from 0 to 9"),
        ("--max-participations 3", "--max-participations 3 with unit task: only a client"),
        ("--tasks-per-user 3", "--tasks-per-user with unit task: allowed for unit user"),
        ("--unit client --rate 0.1", "--rate 0.1 with unit client: .* --max-participations where"),
        ("--mechanism gaussian --unit client", "--unit client with noise at the client"),
    ],
)
def test_a_refusal_names_the_options_and_no_settings(
    capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    code, out, err = run(capsys, "--noise-multiplier", "3", *words.split())
    assert (code, out) == (2, "")
    assert re.search(f"^fedmeta: {said}", err, re.MULTILINE), err
    assert "_" not in err


def test_a_target_that_is_out_of_reach_names_its_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PlanRefused("epsilon 1e-06 is out of reach at this delta and rounds")

    monkeypatch.setattr(planning, "_in_the_sum", refuse)
    code, _, err = run(capsys, "--target-epsilon", "1e-6")
    assert code == 2
    assert "fedmeta: --target-epsilon 1e-06 is out of reach at this delta and rounds\n" in err


def test_a_delta_near_one_has_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--noise-multiplier", "3", "--delta", "0.999999", "--rate", "0.5")
    assert planned(capsys, *words)["claim"] is not None


def request(**changes: Any) -> planning.Request:
    base: dict[str, Any] = dict.fromkeys(planning.Request.__dataclass_fields__)
    base |= {"mechanism": "skellam", "unit": "task", "rate": 1.0, "noise_multiplier": 8.0}
    base |= {"rounds": 10, "delta": 1e-5, "clients": 10, "max_colluders": 1, "dimension": 10}
    base |= {"expected_units": 10, "person_units": 2, "clip": 1.0}
    return planning.Request(**{**base, **changes})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "exactly one of --noise-multiplier and --target-epsilon"),
        (("--noise-multiplier", "1", "--target-epsilon", "3"), "exactly one"),
        (("--target-epsilon", "0"), "--target-epsilon = 0.0: must be a number from 1e-06"),
        (("--target-epsilon", "nan"), "--target-epsilon = nan: must be a number"),
        (("--target-epsilon", "inf"), "--target-epsilon = inf"),
        (("--noise-multiplier", "-1"), "--noise-multiplier = -1.0"),
        (("--noise-multiplier", "nan"), "--noise-multiplier = nan"),
        (("--noise-multiplier", "1", "--rate", "0"), "--rate = 0.0: must be a number from"),
        (("--noise-multiplier", "1", "--rate", "1.5"), "--rate = 1.5"),
        (("--noise-multiplier", "1", "--rate", "nan"), "--rate = nan"),
        (("--noise-multiplier", "1", "--delta", "1"), "--delta = 1.0: must be"),
        (("--noise-multiplier", "1", "--delta", "0"), "--delta = 0.0"),
        (("--noise-multiplier", "1", "--clip", "inf"), "--clip = inf"),
        (("--noise-multiplier", "1", "--rounds", "0"), "--rounds = 0: must be an integer from 1"),
        (("--noise-multiplier", "1", "--clients", "1"), "--clients = 1: must be an integer from 2"),
        (("--noise-multiplier", "1", "--max-colluders", "-1"), "--max-colluders = -1"),
        (("--noise-multiplier", "1", "--max-colluders", "10"), "--max-colluders 10"),
        (("--noise-multiplier", "1", "--min-survivors", "11"), "--min-survivors 11"),
        (("--noise-multiplier", "1", "--dimension", "0"), "--dimension = 0"),
        (("--noise-multiplier", "1", "--person-units", "1001"), "--person-units = 1001"),
        (("--noise-multiplier", "1", "--unit", "taks"), "Did you mean 'task'?"),
        (("--noise-multiplier", "1", "--unit", "person"), "--unit"),
        (("--noise-multiplier", "1", "--mechanism", "laplace"), "--mechanism"),
        (("--noise-multiplier", "1", "--adversary", "agregator"), "Did you mean 'aggregator'?"),
        (("--noise-multiplier", "1", "--unit", "client", "--rate", "0.5"), "sees which clients"),
        (("--noise-multiplier", "1", "--max-participations", "3"), "only a client counts"),
        (("--noise-multiplier", "1", "--tasks-per-user", "3"), "unit user alone"),
        (
            ("--noise-multiplier", "1", "--mechanism", "gaussian", "--min-survivors", "5"),
            "--min-survivors = 5: means nothing",
        ),
        (
            ("--noise-multiplier", "1", "--mechanism", "gaussian", "--unit", "client"),
            "allowed are task and record",
        ),
        (("--target-epsilon", "1e-6", "--rounds", "10000"), "2^50"),
        (("nowhere.toml",), "nowhere.toml: cannot be read"),
    ],
)
def test_bad_input_is_named_with_its_range(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize("words", [("--rounds", "many"), ("--rate", "x"), ("--nonsense", "1")])
def test_what_is_no_number_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, _, err = run(capsys, *words)
    assert code == 2
    assert words[0] in err
