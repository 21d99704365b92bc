"""The instruments that a run may be watched by, by the names of the command line."""

from __future__ import annotations

from secure_fedmeta.progress import Instrument


def chosen(*, profile: bool, tensorboard: bool) -> list[Instrument]:
    """Those that are asked for; each is imported only then.

    Raises:
        ConfigError: a package that one of them needs is not installed.
    """
    found: list[Instrument] = []
    if profile:
        from secure_fedmeta.profiling import Profile

        found.append(Profile())
    if tensorboard:
        from secure_fedmeta.tensorboard import TensorBoard

        found.append(TensorBoard())
    return found
