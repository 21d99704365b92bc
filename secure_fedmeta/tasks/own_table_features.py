"""From what a person declares of a column to the column's policy and the inputs made of it."""

from __future__ import annotations

from collections.abc import Mapping

from secure_fedmeta.tasks.dictionary import (
    Category,
    Code,
    DataDictionary,
    Feature,
    Number,
    indicator,
    linear,
    logarithm,
)
from secure_fedmeta.tasks.own_table_options import FeatureOptions


def column_of(name: str, options: FeatureOptions) -> Number | Category:
    """What the column may hold."""
    if options.bounds is None:
        return Category(name, options.values, missing=options.missing)
    return Number(
        name,
        "",
        *options.bounds,
        above=options.above,
        missing=options.missing,
        codes=options.codes,
    )


def inputs_of(name: str, options: FeatureOptions) -> list[Feature]:
    """The inputs made of the column: its values, and whether one is missing where that may be.

    A missing number, and a missing word encoded by its place, is the middle of the range; a missing
    word encoded one-hot is none of the words.
    """
    if options.values and options.encode == "one-hot":
        return [indicator(f"{name} {word}", name, word) for word in options.values]
    if options.bounds is None:
        inputs = [_ordinal(name, options.values)]
    else:
        scaled = logarithm if options.scale == "log" else linear
        inputs = [scaled(name, name, *options.bounds)]
    if options.missing == "code":
        inputs.append(indicator(f"{name} missing", name, None))
    return inputs


def dictionary_of(
    features: Mapping[str, FeatureOptions], *others: Number | Category | Code
) -> DataDictionary:
    """These columns and the feature columns, and the inputs in the order of the columns' names.

    A config's digest does not depend on the order of its settings, so that the model must not.
    """
    ordered = sorted(features.items())
    columns = (*others, *(column_of(name, chosen) for name, chosen in ordered))
    inputs = [one for name, chosen in ordered for one in inputs_of(name, chosen)]
    return DataDictionary(columns, tuple(inputs))


def _ordinal(name: str, values: tuple[str, ...]) -> Feature:
    places = {word: float(place) for place, word in enumerate(values)}
    return Feature(
        name,
        f"place of {name} in its values",
        lambda row: places.get(str(row[name])),
        0,
        len(places) - 1,
    )
