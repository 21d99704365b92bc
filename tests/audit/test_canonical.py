from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.canonical import MAX_DEPTH, MAX_INTEGER, decimal, dumps, loads, parse_decimal
from audit.errors import EntryRefused

texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20
)


def test_rfc_8785_section_3_2_3_sorts_by_utf_16_code_units() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]
    order = ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(loads(dumps(dict.fromkeys(keys, 0)))) == order


@given(values)
def test_what_is_written_reads_back(value: Any) -> None:
    assert loads(dumps(value)) == value


def test_mappings_and_tuples_are_written_as_objects_and_lists() -> None:
    assert dumps(MappingProxyType({"b": (1, True), "a": None})) == b'{"a":null,"b":[1,true]}'


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":1}', "duplicate key"),
        (b'{"b":1,"a":2}', "keys out of order"),
        (b'{"a": 1}', "blank"),
        (b'{"a":1} ', "trailing blank"),
        (b'{"a":1}{}', "trailing value"),
        (b'{"a":1}\x00', "trailing byte"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":Infinity}', "infinity"),
        (b'{"a":1.0}', "float"),
        (b'{"a":1e2}', "float with exponent"),
        (b'{"a":-0}', "minus zero"),
        (b'{"a":01}', "leading zero"),
        (b'{"a":9007199254740992}', "2^53"),
        (b'{"a":' + b"9" * 5000 + b"}", "an integer of 5000 digits"),
        (b'"\\ud800"', "lone surrogate"),
        (b'"\\u0041"', "needless escape"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "surrogate in UTF-8"),
        (b"[" * 40 + b"]" * 40, "40 levels"),
        (b"[" * 60_000 + b"]" * 60_000, "60,000 levels"),
        (b"", "nothing"),
        (b'{"a":', "cut off"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_but_canonical_json_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(EntryRefused):
        loads(data)


@pytest.mark.parametrize(
    "value", [1.0, math.nan, b"bytes", {1: 2}, "\ud800", {"\udfff": 1}, 2**53, -(2**53), object()]
)
def test_what_json_readers_disagree_about_is_not_written(value: Any) -> None:
    with pytest.raises(EntryRefused):
        dumps({"a": [value]})


def test_depth_is_bounded() -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert loads(dumps(value)) == value
    with pytest.raises(EntryRefused, match="levels"):
        dumps([value])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_decimal_reads_back_to_the_same_float(x: float) -> None:
    assert parse_decimal(decimal(x)) == x


def test_infinity_has_a_decimal_and_nan_none() -> None:
    assert decimal(math.inf) == "inf"
    for x in (math.nan, -math.inf):
        with pytest.raises(EntryRefused):
            decimal(x)


@pytest.mark.parametrize("text", ["", "inf", "nan", "1e999", "0x1", "1_0", " 1", "+1", "01", "٣"])
def test_only_plain_finite_decimals_are_read(text: str) -> None:
    with pytest.raises(EntryRefused):
        parse_decimal(text)
