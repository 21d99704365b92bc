"""The pipeline's errors. Each tells the user what to change; only `cli` maps them to exit codes."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable


class FedmetaError(Exception):
    """Base of every error that the pipeline raises on purpose."""


class ConfigError(FedmetaError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another.

    Args:
        reason: what is wrong and what is allowed.
        key: the dotted key, such as `privacy.epsilon`; None where no single key is at fault.
        value: the offending value, shown with repr.
        file: the file that was read, if any.
    """

    def __init__(
        self, reason: str, *, key: str | None = None, value: object = None, file: str | None = None
    ) -> None:
        self.reason = reason
        self.key = key
        self.value = value
        self.file = file
        setting = None if key is None else key if value is None else f"{key} = {value!r}"
        super().__init__(": ".join(part for part in (file, setting, reason) if part))

    def in_file(self, file: str) -> ConfigError:
        """The same error, naming the file that was read."""
        return ConfigError(self.reason, key=self.key, value=self.value, file=file)


class DataError(FedmetaError):
    """Data break what their source declares; names file, row and column where there are such."""


class RunDirectoryError(FedmetaError):
    """A run directory is missing, incomplete or not of this product."""


class RunEnded(RunDirectoryError):
    """A run that has ended, and so is not resumed; all its files are there."""


class NothingBegun(RunDirectoryError):
    """A run that was cut off before its first round could begin; nothing of it was charged."""


class AgentError(FedmetaError):
    """A personal agent, or its file, cannot do what was asked."""


class StateError(FedmetaError):
    """The state directory, which holds keys, pins and the ledger, cannot be used as it is."""


def in_options(text: str, options: Collection[str]) -> str:
    """A refusal in the words of the command line.

    Args:
        text: names settings as the libraries do: its first word, or words with underscores.
        options: the names that are options of the command.
    """
    named = {option.replace("-", "_"): f"--{option.replace('_', '-')}" for option in options}

    def option(found: re.Match[str]) -> str:
        plain = found.start() > 0 and "_" not in found.group()
        return found.group() if plain else named.get(found.group(), found.group())

    return re.sub(r"\w+", option, text)


def unknown_name(kind: str, name: str, known: Iterable[str], *, key: str) -> ConfigError:
    """The error for a name that no registry holds, with the nearest known one.

    Args:
        kind: what is being named, such as "learner".
        name: the unknown name.
        known: the names that are known.
        key: the dotted key in the config that held the name.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(
        f"no such {kind}.{hint} Known: {', '.join(names) or 'none'}", key=key, value=name
    )
