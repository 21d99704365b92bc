"""The registry of task sources, and the way from a config's `[data]` to a source."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from secure_fedmeta.errors import ConfigError
from secure_fedmeta.registry import Registry
from secure_fedmeta.tasks.credit import CreditSource
from secure_fedmeta.tasks.heart import HeartSource
from secure_fedmeta.tasks.images import ImageSource
from secure_fedmeta.tasks.lending import LendingSource
from secure_fedmeta.tasks.migraine import MigraineSource
from secure_fedmeta.tasks.own_table import OwnTableSource
from secure_fedmeta.tasks.protocol import SourceClass, SourceOptions, TaskSource
from secure_fedmeta.tasks.schema import Declared, Schema
from secure_fedmeta.tasks.shakespeare import ShakespeareSource
from secure_fedmeta.tasks.sinusoid import SinusoidSource
from secure_fedmeta.tasks.site import Site
from secure_fedmeta.tasks.synthetic import SyntheticSource
from secure_fedmeta.tasks.thyroid import ThyroidSource
from secure_fedmeta.tasks.vowels import VowelSource

ENTRY_POINT_GROUP = "secure_fedmeta.task_sources"

SOURCES: Registry[SourceClass] = Registry(
    "task source",
    "data.source",
    ENTRY_POINT_GROUP,
    {
        "credit": CreditSource,
        "heart": HeartSource,
        "images": ImageSource,
        "lending": LendingSource,
        "migraine": MigraineSource,
        "shakespeare": ShakespeareSource,
        "sinusoid": SinusoidSource,
        "synthetic": SyntheticSource,
        "table": OwnTableSource,
        "thyroid": ThyroidSource,
        "vowels": VowelSource,
    },
)


def check_options(name: str, options: Mapping[str, object]) -> SourceOptions:
    """The options of the source called `name`, validated; reads no data.

    Args:
        name: a registered source.
        options: the table `[data.options]`.

    Raises:
        ConfigError: unknown source, unknown key, or a value of the wrong type or out of range; the
            message names every offending key.
    """
    model = getattr(SOURCES.get(name), "Options", None)
    if not (isinstance(model, type) and issubclass(model, SourceOptions)):
        raise ConfigError(
            "its entry point names no task source class with Options", key="data.source", value=name
        )
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(model.model_fields)
        found = "; ".join(
            f"{'.'.join(('data.options', *map(str, item['loc'])))}{_shown(item['input'])}: "
            f"{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False)
        )
        raise ConfigError(f"source {name!r}: {found} (allowed keys: {known})") from error


def needs_data(name: str) -> bool:
    """Whether the source comes without data: it has options that must be set, such as a path."""
    return any(field.is_required() for field in SOURCES.get(name).Options.model_fields.values())


def build_source(name: str, options: Mapping[str, object], site: Site | None = None) -> TaskSource:
    """The source called `name` with these options; its data are read and checked.

    Args:
        name: a registered source.
        options: the table `[data.options]`.
        site: where it is read; None: the current folder, with this user's own block secret.

    Raises:
        ConfigError: as `check_options`.
        DataError: the data break what the source declares.
    """
    chosen = check_options(name, options)
    return SOURCES.get(name)(chosen, site=Site() if site is None else site)


def schema_of(name: str, options: Mapping[str, object]) -> Schema:
    """What a model of the source called `name` with these options reads and predicts.

    Raises:
        ConfigError: unknown source or options.
        DataError: the source needs its data for this, and they break what it declares.
    """
    found = SOURCES.get(name)
    if isinstance(found, Declared):
        return found.schema(check_options(name, options))
    return Schema.of(build_source(name, options).info)


def _shown(value: object) -> str:
    """The offending value, or nothing where it is a whole section, which the key names already."""
    return "" if isinstance(value, Mapping) else f" = {value!r}"
