"""Registries: names in a config -> implementations, built in or declared by an entry point.

An implementation is one new file and one line in its registry. A user's own comes from an
installed distribution that declares an entry point of the registry's group; a config never holds
an import string, so that a config file cannot make the product import arbitrary code.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from secure_fedmeta.errors import ConfigError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Named implementations of one interface.

    Args:
        kind: what is registered, in words, for messages ("task source").
        key: the dotted config key that names an implementation ("data.source").
        group: the entry point group that adds to the built-in names.
        builtin: the implementations that ship with the product.
    """

    def __init__(self, kind: str, key: str, group: str, builtin: dict[str, T]) -> None:
        self._kind = kind
        self._key = key
        self._group = group
        self._builtin = builtin

    def names(self) -> tuple[str, ...]:
        """All known names, built in ones first."""
        declared = {point.name for point in entry_points(group=self._group)}
        return (*self._builtin, *sorted(declared - set(self._builtin)))

    def get(self, name: str) -> T:
        """The implementation called `name`.

        Raises:
            ConfigError: no such name (with the nearest known one), or two distributions declare it.
        """
        if name in self._builtin:
            return self._builtin[name]
        points = [point for point in entry_points(group=self._group) if point.name == name]
        if len(points) > 1:
            raise ConfigError(
                f"{len(points)} installed distributions declare this {self._kind}; uninstall one",
                key=self._key,
                value=name,
            )
        if not points:
            raise unknown_name(self._kind, name, self.names(), key=self._key)
        return cast("T", points[0].load())
