"""The frozen vectors: what is good is read as it says, what is bad is refused for its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.errors import AuditError
from crypto.errors import CryptoError
from tests.vectors import FORMATS
from tests.vectors.encapsulations import PATH, Encapsulations
from tests.vectors.format import FOLDER, Format

formats = pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
GOOD = [(one, case) for one in FORMATS for case in one.cases("good")]
BAD = [(one, case) for one in FORMATS for case in one.cases("bad")]


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Format) else str(value["name"])  # type: ignore[index]


@pytest.mark.parametrize(("one", "case"), GOOD, ids=name_of)
def test_a_good_vector_is_read_as_it_says(one: Format, case: dict[str, object]) -> None:
    one.check(case)


@pytest.mark.parametrize(("one", "case"), BAD, ids=name_of)
def test_a_bad_vector_is_refused_for_its_reason(one: Format, case: dict[str, object]) -> None:
    with pytest.raises((CryptoError, AuditError)) as caught:
        one.refuse(case)
    assert type(caught.value).__name__ == case["error"]
    assert str(case["reason"]) in str(caught.value)


@formats
def test_the_generator_writes_these_files_byte_for_byte(one: Format) -> None:
    for path, text in one.files().items():
        assert path.read_text() == text, f"{path.name}: run scripts/build_vectors.py and read it"


@formats
def test_every_bug_is_explained_and_has_a_case(one: Format) -> None:
    assert one.about
    assert {case["bug"] for case in one.cases("bad")} == set(one.bugs)
    for kind in ("good", "bad"):
        names = [case["name"] for case in one.cases(kind)]
        assert len(set(names)) == len(names) > 0


def test_no_file_is_left_over() -> None:
    known = {one.path(kind) for one in FORMATS for kind in ("good", "bad")} | {PATH}
    assert set(FOLDER.glob("*.json")) == known


def test_an_encapsulation_that_was_never_drawn_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="build_vectors"):
        Encapsulations()._encapsulate(b"k" * 1216)
