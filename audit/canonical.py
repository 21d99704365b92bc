"""Canonical JSON (RFC 8785), read strictly, and the digests and decimals that entries hold.

Floats never enter an entry: two languages print them differently. A real number is a decimal
string (`decimal`), an integer stays within +-(2^53 - 1) where every JSON reader agrees.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785

from audit.errors import EntryRefused

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 32
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-]?[0-9]+)?")


def sha256(data: bytes) -> bytes:
    """SHA-256 of `data`, 32 bytes (FIPS 180-4)."""
    return hashlib.sha256(data).digest()


def dumps(value: Any) -> bytes:
    """Write a value as RFC 8785 canonical JSON.

    Args:
        value: mappings with text keys, lists, tuples, text, booleans, None and integers within
            +-(2^53 - 1), nested.

    Raises:
        EntryRefused: a float, an integer out of range, a lone surrogate, any other type, or more
            than 32 levels.
    """
    return rfc8785.dumps(_plain(value, MAX_DEPTH))


def loads(data: bytes) -> Any:
    """Read canonical JSON, and nothing else.

    The bytes must be exactly what `dumps` writes for their value, so duplicate keys, blanks,
    other escapes, another key order, floats, NaN, lone surrogates, integers beyond 2^53 - 1 and
    trailing bytes are all refused. Hash the stored bytes; never the value written again.

    Raises:
        EntryRefused: `data` is not canonical JSON.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, parse_float=_refuse_number, parse_constant=_refuse_number, object_pairs_hook=_dict
        )
    except (ValueError, RecursionError) as error:
        raise EntryRefused(f"not JSON: {type(error).__name__}") from None
    if dumps(value) != data:
        raise EntryRefused("not in canonical form (RFC 8785)")
    return value


def decimal(x: float) -> str:
    """The shortest decimal text that reads back as the same float64; `inf` for infinity.

    Raises:
        EntryRefused: NaN or minus infinity, which no figure of the log can mean.
    """
    if math.isnan(x) or x == -math.inf:
        raise EntryRefused(f"{x!r} is no figure; a number or infinity is")
    return repr(float(x))


def parse_decimal(text: str) -> float:
    """Read a finite decimal string as float64.

    Raises:
        EntryRefused: not a decimal, or beyond the range of float64.
    """
    if _DECIMAL.fullmatch(text) is None:
        raise EntryRefused(f"{text[:40]!r} is not a decimal string")
    value = float(text)
    if not math.isfinite(value):
        raise EntryRefused(f"{text[:40]!r} is beyond float64")
    return value


def _plain(value: Any, depth: int) -> Any:
    """A copy in plain dicts and lists, checked to be what an entry may hold."""
    if depth == 0:
        raise EntryRefused(f"nested more than {MAX_DEPTH} levels deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise EntryRefused("integer beyond 2^53 - 1: write it as a decimal string")
        return int(value)
    if isinstance(value, Mapping):
        return {_text(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    raise EntryRefused(f"{type(value).__name__} has no place in an entry (floats: use decimal())")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise EntryRefused(f"key {value!r} is not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise EntryRefused("text holds a lone surrogate") from None
    return str(value)


def _dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise EntryRefused("duplicate key")
    return result


def _refuse_number(text: str) -> NoReturn:
    raise EntryRefused(f"number {text[:40]} is not an integer")
