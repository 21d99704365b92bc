"""Which of a source's clients train, which are only scored, and which are left alone."""

from __future__ import annotations

from secure_fedmeta.config import Config
from secure_fedmeta.errors import ConfigError, unknown_name
from secure_fedmeta.tasks import TaskSource


def divide(config: Config, source: TaskSource) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the clients that train, in the source's order, and of those that are scored.

    No client is in both; one that `data.unused` names is in neither. Where `data.held_out` names
    nobody these are the clients that the source keeps for it, less the unused ones.

    Raises:
        ConfigError: a name that the source does not have, one named twice, or a client that is
            both held out and unused.
    """
    names = source.clients()
    unused = config.data.unused
    kept = tuple(name for name in source.info.held_out if name not in unused)
    held_out = config.data.held_out or kept
    for key, chosen in (("data.held_out", held_out), ("data.unused", unused)):
        for name in chosen:
            if name not in names:
                raise unknown_name("client", name, names, key=key)
        if len(set(chosen)) != len(chosen):
            raise ConfigError("names a client twice", key=key, value=list(chosen))
    if both := sorted(set(held_out) & set(unused)):
        raise ConfigError(
            f"{both[0]!r} is held out, and hence scored; name it in one of the two",
            key="data.unused",
            value=list(unused),
        )
    absent = {*held_out, *unused}
    return tuple(name for name in names if name not in absent), tuple(held_out)
