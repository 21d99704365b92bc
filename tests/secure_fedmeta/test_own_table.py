"""A table of one's own: what its declarations mean, which units they carry, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.pipeline import assemble, check_holdings
from secure_fedmeta.tasks import Site, build_source, check_options
from tests.secure_fedmeta.federation import tiny
from tests.secure_fedmeta.own_tables import (
    SECRET,
    contents,
    csv_text,
    options,
    rows,
    site,
    source,
)

BY_USER: dict[str, Any] = {
    "user": "person",
    "records": None,
    "max_tasks": {"north": 5, "south": 5},
}


def one(folder: Path, column: str, cell: str, **changes: Any) -> Any:
    """The source where one cell of the eleventh row is another."""
    cells = rows()
    cells[10][column] = cell
    return source(folder, cells, **changes)


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        (
            "income",
            "nan",
            r"loans.csv, line 12, income = 'nan': allowed is a number from 0 to 1",
        ),
        ("income", "inf", "income = 'inf'"),
        ("income", "1e999", "income = '1e999'"),
        ("income", "1000.5", "income = '1000.5'"),
        ("income", "-0.5", "income = '-0.5'"),
        ("income", "", "income = ''"),
        ("income", " 5", "income = ' 5'"),
        ("income", "x" * 200, r"income = '" + "x" * 80 + r"'\.\.\.: allowed"),
        ("home", "Own", "home = 'Own': allowed is own, rent"),
        ("late", "maybe", "late = 'maybe': allowed is no, yes"),
        ("late", "", "late = ''"),
        ("bank", "east", "line 12, bank = 'east': allowed is north, south"),
        ("loan", "", "loan = '': allowed is 1 to 200 printable characters"),
        ("loan", "a\tb", "printable"),
        (
            "loan",
            "L3",
            r"line 12, loan = 'L3': client 'north' has this record in line 5 already",
        ),
    ],
)
def test_a_cell_that_breaks_its_declaration_names_everything(
    tmp_path: Path, column: str, cell: str, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        one(tmp_path, column, cell)


def test_the_same_record_id_in_two_banks_is_two_records(tmp_path: Path) -> None:
    found = source(tmp_path)
    assert found.info.rows == 80
    assert {record.id for record in found.records()} >= {"north/L0", "south/L0"}


def test_what_is_declared_to_be_coded_is_coded_and_counted(tmp_path: Path) -> None:
    cells = rows()
    cells[0]["income"], cells[1]["income"], cells[2]["income"] = "5000", "", "-9"
    cells[3]["home"] = ""
    feature = {"low": 0, "high": 1000, "above": "clip", "missing": "code", "codes": [-9]}
    found = source(
        tmp_path,
        cells,
        features__income=feature,
        features__home={"values": ["own", "rent"], "missing": "code"},
    )
    assert found.info.features == ("home own", "home rent", "income", "income missing")
    assert found.info.clipped == {"income": 1}
    assert found.info.missing == {"income": 2, "home": 1}
    x = [record.x.tolist() for record in found.records()[:5]]
    assert x[0] == [1.0, 0.0, 1.0, 0.0]
    assert x[1] == [0.0, 1.0, 0.0, 1.0]
    assert x[2] == [1.0, 0.0, 0.0, 1.0]
    assert x[3] == [0.0, 0.0, pytest.approx(-0.88), 0.0]
    assert x[4] == [1.0, 0.0, pytest.approx(-0.84), 0.0]


def test_scales_and_places(tmp_path: Path) -> None:
    found = source(
        tmp_path,
        features__income={"low": 0, "high": 1000, "scale": "log"},
        features__home={"values": ["other", "own", "rent"], "encode": "ordinal", "missing": "code"},
    )
    assert found.info.features == ("home", "home missing", "income")
    x = np.stack([record.x for record in found.records()[:2]])
    expected = 2 * np.log1p([0, 20]) / np.log1p(1000) - 1
    assert x[:, 2] == pytest.approx(expected)
    assert x[:, 0].tolist() == [0.0, 1.0]  # own is the second of three, rent the third


def test_the_order_of_declarations_does_not_matter(tmp_path: Path) -> None:
    """A config's digest does not see it; parties that agree on the digest must agree on inputs."""
    found = source(tmp_path)
    turned = options()
    for key in ("features", "records"):
        turned[key] = dict(reversed(turned[key].items()))
    other = build_source("table", turned, site(tmp_path))
    assert other.info.features == found.info.features == ("home own", "home rent", "income")
    assert contents(other) == contents(found)


@pytest.mark.parametrize(
    ("target", "output", "labels"),
    [
        ({"column": "late", "values": ["no", "yes"]}, (1, "cross_entropy", "auc"), {0.0, 1.0}),
        (
            {"column": "late", "values": ["perhaps", "yes", "no"]},
            (3, "cross_entropy", "accuracy"),
            {1.0, 2.0},
        ),
        ({"column": "income", "low": 0, "high": 800}, (1, "mse", "mse"), None),
    ],
)
def test_targets(
    tmp_path: Path, target: dict[str, Any], output: object, labels: set[float] | None
) -> None:
    features = {"home": {"values": ["own", "rent"]}}
    found = source(tmp_path, target=target, features=features)
    info = found.info
    assert (info.output_dim, info.loss, info.metric) == output
    held = [record.y for record in found.records()]
    if labels is None:
        assert held[:2] == [-1.0, pytest.approx(-0.95)]
        assert max(held) == pytest.approx(0.95)
    else:
        assert set(held) == labels


# --- units --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "units"),
    [
        pytest.param({}, {"record", "task", "client"}, id="ids"),
        pytest.param({"record": None}, {"client"}, id="places"),
        pytest.param(BY_USER, {"record", "task", "user", "client"}, id="users"),
        pytest.param(
            {**BY_USER, "record": None}, {"record", "task", "user", "client"}, id="users-places"
        ),
        pytest.param(
            {**BY_USER, "user": None, "task": "person"}, {"record", "task", "client"}, id="tasks"
        ),
    ],
)
def test_units_follow_from_what_is_declared(
    tmp_path: Path, changes: dict[str, Any], units: set[str]
) -> None:
    info = source(tmp_path, **changes).info
    assert info.units == units
    assert set(info.lacking) == {"record", "task", "user", "client"} - units


def config(folder: Path, unit: str, **changes: Any) -> Any:
    return tiny(
        {
            "data": {"source": "table", "options": options(**changes)},
            "privacy.unit": unit,
            "privacy.min_survivors": 3,
        }
    )


@pytest.mark.parametrize(
    ("unit", "changes", "expected"),
    [
        ("user", {}, r"privacy.unit = 'user': .* no column says which person"),
        ("task", {"record": None}, r"privacy.unit = 'task': .* declare data.options.record"),
        ("record", {"record": None}, r"privacy.unit = 'record': .* declare data.options.record"),
    ],
)
def test_a_unit_that_cannot_be_promised_is_refused_with_the_reason(
    tmp_path: Path, unit: str, changes: dict[str, Any], expected: str
) -> None:
    source(tmp_path)
    with pytest.raises(ConfigError, match=expected):
        assemble(config(tmp_path, unit, **changes), site=site(tmp_path))


def test_a_user_of_two_clients_is_refused_for_unit_user_alone(tmp_path: Path) -> None:
    cells = [
        {**row, "bank": bank, "person": f"{bank}-{number % 5}"}
        for bank in ("north", "south", "west")
        for number, row in enumerate(rows()[:40])
    ]
    by_user = {**BY_USER, "max_tasks": dict.fromkeys(("north", "south", "west"), 5)}
    found = source(tmp_path, cells, **by_user)
    assert {block.user for block in found.client("west").blocks} == {f"west-{n}" for n in range(5)}
    check_holdings(assemble(config(tmp_path, "user", **by_user), site=site(tmp_path)))
    for row in cells:
        row["person"] = row["person"].replace("west-1", "north-2")
    (tmp_path / "loans.csv").write_text(csv_text(cells))
    check_holdings(assemble(config(tmp_path, "task", **by_user), site=site(tmp_path)))
    with pytest.raises(ConfigError, match="'north' and 'west' hold tasks of the same user"):
        check_holdings(assemble(config(tmp_path, "user", **by_user), site=site(tmp_path)))


def test_without_ids_a_row_taken_away_moves_others_where_tasks_are_hashed(tmp_path: Path) -> None:
    """Why the unit task is refused there; with ids, and with declared tasks, it is promised."""

    def moved(**changes: Any) -> int:
        first = contents(source(tmp_path, **changes))
        less = contents(source(tmp_path, rows()[1:], **changes))
        return sum(first.get(name) != less.get(name) for name in first | less)

    assert moved() == 1
    assert moved(record=None) > 1
    gone = [row for row in rows() if row["person"] != "north-3"]
    whole = contents(source(tmp_path, record=None, **BY_USER))
    left = contents(source(tmp_path, gone, record=None, **BY_USER))
    assert left == {name: held for name, held in whole.items() if name != "north/north-3"}


def test_without_ids_another_content_is_another_place_in_a_sorted_table(tmp_path: Path) -> None:
    """Why unit record is refused there."""

    def changed(**changes: Any) -> int:
        richer = [{**row, "income": "1000"} if row["loan"] == "L0" else row for row in rows()]
        by_income = [
            contents(source(tmp_path, sorted(cells, key=lambda row: int(row["income"])), **changes))
            for cells in (rows(), richer)
        ]
        return sum(by_income[0].get(name) != by_income[1].get(name) for name in by_income[0])

    assert changed() == 2  # one record of each bank
    assert changed(record=None) > 2


def test_names_with_slashes_stay_apart(tmp_path: Path) -> None:
    cells = rows()
    for number, row in enumerate(cells):
        row["person"], row["home"] = (("a/b", "own"), ("a", "rent"))[number % 2]
        row["late"] = ("c", "b/c")[number % 2]
    found = source(
        tmp_path,
        cells,
        **{**BY_USER, "task": "late"},
        target={"column": "income", "low": 0, "high": 800},
        features={"home": {"values": ["own", "rent"]}},
    )
    assert found.info.tasks == 4
    assert {block.user for block in found.client("north").blocks} == {"a/b", "a"}


def test_more_tasks_than_declared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'south' has 5 tasks, more than the 4 of"):
        source(tmp_path, **{**BY_USER, "max_tasks": {"north": 5, "south": 4}})


# --- the secret ---------------------------------------------------------------------------------


def test_a_secret_cuts_confidential_blocks_and_none_cuts_public_ones(tmp_path: Path) -> None:
    first = contents(source(tmp_path))
    assert contents(build_source("table", options(), site(tmp_path))) == first
    assert contents(build_source("table", options(), site(tmp_path, bytes(32)))) != first

    def nobody_asks() -> bytes:
        raise AssertionError

    public = build_source("table", options(public=True), Site(tmp_path, nobody_asks))
    assert contents(public) != first
    build_source("table", options(**BY_USER), Site(tmp_path, nobody_asks))


def test_the_secret_is_kept_and_no_record_moves_between_runs(
    tmp_path: Path, state_dir: Path
) -> None:
    source(tmp_path)
    first = contents(build_source("table", options(), Site(tmp_path)))
    assert contents(build_source("table", options(), Site(tmp_path))) == first
    (state_dir / "blocks.key").unlink()
    assert contents(build_source("table", options(), Site(tmp_path))) != first


def test_a_seed_takes_the_place_of_the_secret(tmp_path: Path) -> None:
    cells = [{**row, "bank": bank} for bank in ("north", "south", "west") for row in rows()[:40]]
    three = {"records": dict.fromkeys(("north", "south", "west"), 40)}
    source(tmp_path, cells, **three)
    settings = config(tmp_path, "task", **three).model_dump(exclude_none=True)
    found = []
    for seed, secret in ((1, SECRET), (1, bytes(32)), (2, SECRET)):
        changed = {key: value for key, value in settings.items() if key != "name"}
        parts = assemble(tiny({**changed, "not_private.seed": seed}), site=site(tmp_path, secret))
        found.append(contents(parts.source))
    assert found[0] == found[1] != found[2]


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"records": None}, "without task or user, set records"),
        ({"user": "person"}, "with task or user, set max_tasks"),
        ({"records": {}}, "at least one client"),
        ({"records": {"north bank": 5}}, r"records\.north bank"),
        ({"records": {"north": 0}}, r"records\.north = 0"),
        ({"features": {}}, "at least one feature"),
        ({"record": "income"}, "column 'income' is declared twice"),
        ({"features__income__low": None}, r"features\.income: set low and high"),
        ({"features__income__low": 1000}, "low 1000 must be below high 1000"),
        ({"features__income__low": float("nan")}, r"features\.income\.low = nan"),
        ({"features__income__values": ["a", "b"]}, "set low and high for a number, or values"),
        ({"features__income__low": -1, "features__income__scale": "log"}, "low at least 0"),
        ({"features__income__codes": [-9]}, 'need missing = "code"'),
        ({"features__income__encode": "ordinal"}, "encode is for"),
        ({"features__home__values": ["own"]}, "two or more different"),
        ({"features__home__values": ["own", "own"]}, "two or more different"),
        ({"features__home__above": "clip"}, "are for numbers"),
        ({"features__home__hihg": 3}, r"features\.home\.hihg"),
        ({"target__column": None}, r"target\.column"),
        ({"target__above": "clip"}, "above is for numbers"),
        ({"path": None}, r"data\.options\.path"),
    ],
)
def test_declarations_that_contradict_each_other_are_refused(
    changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        check_options("table", options(**changes))
