"""Files of examples: the same rows from every kind of file, and refusals that say where."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from secure_fedmeta.agent import AgentSpec, Reader
from secure_fedmeta.agent.answers import answer
from secure_fedmeta.agent.spec import ColumnsSpec
from secure_fedmeta.config import Config
from secure_fedmeta.errors import AgentError, DataError
from secure_fedmeta.tasks import Columns, Schema, schema_of
from tests.contracts.sources import OWN, own_source
from tests.secure_fedmeta.agents import agent_of, examples, spec_of
from tests.secure_fedmeta.federation import tiny

PLAIN = "x0,x1,x2,target\n0.5,-1,2.5,1\n1e-3,0,-5,0\n"
RAW = "bank,income,home,late\nnorth,250,own,yes\nsouth,,rent,no\nwest,4000,,no\n"
COLUMNS = ColumnsSpec.model_validate(
    {
        "features": {
            "home": {"values": ["own", "rent"], "missing": "code"},
            "income": {"low": 0, "high": 1000, "above": "clip", "missing": "code"},
        },
        "target": {"column": "late", "values": ["no", "yes"]},
    }
)
NAMES = ("home own", "home rent", "income", "income missing")


def raw_spec(**changes: Any) -> AgentSpec:
    columns = COLUMNS.model_copy(update=changes)
    return spec_of(features=NAMES, inputs=4, columns=columns.model_dump())


def write(folder: Path, text: str, kind: str = ".csv") -> Path:
    """A table of numbers and words in a file of this kind."""
    path = folder / f"rows{kind}"
    if kind == ".csv":
        path.write_text(text)
        return path
    lines = [line.split(",") for line in text.splitlines()]
    columns = {name: [row[i] for row in lines[1:]] for i, name in enumerate(lines[0])}
    if kind == ".npz":
        np.savez(path, **{name: np.array(values, dtype=str) for name, values in columns.items()})
    else:
        pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", [".csv", ".npz", ".parquet"])
def test_inputs_by_name_come_from_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    reader = Reader(spec_of())
    found = reader.read(write(tmp_path, PLAIN, kind))
    expected = np.array([[0.5, -1, 2.5], [0.001, 0, -5]], dtype=np.float32)
    np.testing.assert_array_equal(found.x, expected)
    assert found.y is not None
    assert found.y.tolist() == [1, 0]
    assert found.x.dtype == found.y.dtype == np.float32
    without = "\n".join(line.rsplit(",", 1)[0] for line in PLAIN.splitlines())
    assert reader.read(write(tmp_path, without, kind)).y is None
    with pytest.raises(
        DataError, match=f"rows{kind}: column target is missing or empty; examples need"
    ):
        reader.read_labelled(write(tmp_path, without, kind))
    empty = "\n".join([PLAIN.splitlines()[0], "0.5,-1,2.5,", "1e-3,0,-5,"])
    assert reader.read(write(tmp_path, empty, kind)).y is None
    turned = "target,x2,x1,x0\n1,2.5,-1,0.5\n"
    np.testing.assert_array_equal(reader.read(write(tmp_path, turned, kind)).x, expected[:1])


@pytest.mark.parametrize("kind", [".csv", ".npz", ".parquet"])
def test_raw_columns_come_from_every_kind_of_file_and_others_are_passed_over(
    kind: str, tmp_path: Path
) -> None:
    reader = Reader(raw_spec())
    assert (reader.columns, reader.target) == (("home", "income"), "late")
    found = reader.read(write(tmp_path, RAW, kind))
    assert found.x.tolist() == [
        [1, 0, -0.5, 0],
        [0, 1, 0, 1],
        [0, 0, 1, 0],
    ]
    assert found.y is not None
    assert (found.y.tolist(), dict(found.clipped)) == ([1, 0, 0], {"income": 1})
    assert reader.read(write(tmp_path, RAW.replace("late", "later"), kind)).y is None


@given(value=st.floats(-5, 5, width=32))
def test_a_number_that_was_written_is_read_again(
    value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = f"x0,x1,x2\n{float(np.float32(value))!r},0,0\n"
    found = Reader(spec_of()).read(write(tmp_path_factory.mktemp("rows"), text))
    assert found.x[0, 0].tobytes() == np.float32(value).tobytes()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("x1", "y1", "rows.csv: missing column x1; the file has x0, y1, x2, target"),
        ("target", "targett", "rows.csv: unknown column 'targett'; allowed are the inputs and"),
        ("x1", "x0", "column 'x0' comes 2 times"),
        ("-1,", "nan,", "rows.csv, line 2, x1 = 'nan': allowed is a number from -5 to 5"),
        ("-1,", "inf,", "line 2, x1 = 'inf'"),
        ("-1,", "1e999,", "line 2, x1 = '1e999'"),
        ("-1,", ",", "line 2, x1 = ''"),
        ("-1,", "5.5,", "line 2, x1 = '5.5'"),
        ("-5,0", "-5,2", "line 3, target = '2': allowed is a number from 0 to 1"),
        ("-5,0", "-5,0.5", "line 3, target = '0.5': allowed is a whole number from 0 to 1"),
        ("-5,0", "-5,", "line 3, target = '': allowed is a target for every row, or for none"),
        ("-5,0", "-5,0,1", "line 3: needs 4 cells"),
        (PLAIN[16:], "", "rows.csv: holds no row"),
        (PLAIN, "", "missing column"),
    ],
)
def test_what_breaks_the_inputs_is_refused_by_its_place(
    old: str, new: str, reason: str, tmp_path: Path
) -> None:
    assert old in PLAIN
    path = write(tmp_path, PLAIN.replace(old, new, 1))
    with pytest.raises(DataError) as refused:
        Reader(spec_of()).read(path)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("home", "house", "missing column home"),
        ("own", "castle", "line 2, home = 'castle': allowed is own, rent or empty"),
        ("250", "-1", "line 2, income = '-1': allowed is a number from 0 to 1000"),
        ("yes", "perhaps", "line 2, late = 'perhaps': allowed is no, yes"),
    ],
)
def test_what_breaks_raw_columns_is_refused_by_its_place(
    old: str, new: str, reason: str, tmp_path: Path
) -> None:
    path = write(tmp_path, RAW.replace(old, new, 1))
    with pytest.raises(DataError) as refused:
        Reader(raw_spec()).read(path)
    assert reason in str(refused.value)


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    reader = Reader(spec_of())
    with pytest.raises(DataError, match=r"must end in \.csv, \.npz, \.parquet"):
        reader.read(tmp_path / "rows.xlsx")
    with pytest.raises(DataError, match="cannot be read"):
        reader.read(tmp_path / "nowhere.csv")
    (tmp_path / "rows.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a file of numpy"):
        reader.read(tmp_path / "rows.npz")


def test_predictions_are_in_the_words_and_units_of_the_columns(tmp_path: Path) -> None:
    agent = agent_of(features=NAMES, inputs=4, columns=COLUMNS.model_dump())
    rows = Reader(agent.spec).read(write(tmp_path, RAW))
    found = answer(agent, rows)
    assert found["classes"] == ["no", "yes"]
    assert {one["prediction"] for one in found["predictions"]} <= {"no", "yes"}
    for one in found["predictions"]:
        assert one["probability"] == max(one["probabilities"]) >= 0.5
    assert 0 <= found["score"] <= 1
    target = {"column": "late", "low": 100, "high": 300}
    columns = COLUMNS.model_dump() | {"target": target}
    number = agent_of("number", features=NAMES, inputs=4, columns=columns)
    text = RAW.replace("yes", "150").replace("no\n", "300\n")
    rows = Reader(number.spec).read(write(tmp_path, text))
    assert rows.y is not None
    np.testing.assert_allclose(rows.y, [-0.5, 1, 1])
    outputs = number.act(rows.x).outputs[:, 0].double()
    said = [one["prediction"] for one in answer(number, rows)["predictions"]]
    np.testing.assert_allclose(said, 200 + 100 * outputs)


def test_an_interval_is_in_the_units_of_the_target(tmp_path: Path) -> None:
    number = agent_of("number")
    number.observe(*examples("number", 30))
    number.learn("adapted")
    rows = Reader(number.spec).read(write(tmp_path, PLAIN))
    for one in answer(number, rows)["predictions"]:
        assert one["low"] <= one["prediction"] <= one["high"]


@pytest.mark.parametrize("case", OWN)
def test_the_schema_of_own_data_needs_no_data(case: str, tmp_path: Path) -> None:
    info = own_source(case, tmp_path).info
    name, write_files = OWN[case]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = write_files(elsewhere)
    shutil.rmtree(elsewhere)
    found = schema_of(name, options)
    assert replace(found, columns=None) == Schema.of(info)
    assert (found.columns is not None) == (name == "table")


def test_a_spec_says_what_the_config_says() -> None:
    config: Config = tiny({"evaluation.adapt_steps": 7, "evaluation.adapt_lr": 0.3})
    schema = schema_of(config.data.source, config.data.options)
    spec = AgentSpec.of(config, schema, run="r")
    assert (spec.rule.steps, spec.rule.lr, spec.rule.local_steps) == (7, 0.3, 2)
    assert (spec.rule.algorithm, spec.features, spec.low, spec.high) == ("fomaml", ("x",), -5, 5)
    assert (spec.classes, spec_of("binary").classes, spec_of("classes").classes) == (None, 2, 3)


def test_a_run_beyond_what_an_agent_may_be_is_refused_in_words() -> None:
    config = tiny({"model.name": "mlp", "model.hidden": [2**21]})
    schema = schema_of(config.data.source, config.data.options)
    with pytest.raises(AgentError, match=r"no agent can be made of this run: hidden\.0: Input"):
        AgentSpec.of(config, schema, run="r")
    words = COLUMNS.model_copy(
        update={"target": COLUMNS.target.model_copy(update={"values": ("a\x1b", "b")})}
    )
    raw = replace(
        schema, features=NAMES, columns=Columns(words.features, words.target), loss="cross_entropy"
    )
    with pytest.raises(AgentError, match="characters that cannot be shown"):
        AgentSpec.of(tiny(), raw, run="r")


def test_columns_that_are_not_the_model_s_inputs_are_refused() -> None:
    with pytest.raises(ValidationError, match="the columns give other inputs"):
        spec_of(features=("a", "b", "c", "d"), inputs=4, columns=COLUMNS.model_dump())
