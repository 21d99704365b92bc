"""Bugs to plant into the runs under test, to see that they are noticed, and as what."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import privacy.ledger
from audit.store import OsDisk
from privacy.ledger import Ledger
from privacy.rng import SecureRandom
from secure_fedmeta import state
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.checkpoint import Checkpoints
from secure_fedmeta.course import Training
from secure_fedmeta.kept import Kept
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.remains import Remains
from secure_fedmeta.resumption import Start
from tests.chaos.life import AtPromise, Plant


@dataclass(frozen=True)
class Planted:
    """A bug.

    Attributes:
        fault: what it must be counted as.
        scenario: which run shows it.
        kills: when its processes are killed, one after the other.
        plant: puts it into a process.
    """

    fault: str
    scenario: str
    kills: tuple[AtPromise, ...]
    plant: Plant


def replacing(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Plant:
    """A plant that puts `wrap` of what is there in its place."""

    @contextmanager
    def planted() -> Iterator[None]:
        with mock.patch.object(owner, name, wrap(getattr(owner, name))):
            yield

    return planted


@contextmanager
def charges_late() -> Iterator[None]:
    """A reservation is acknowledged, and only made once its sum is open."""
    reserve, commit = Ledger.reserve, Ledger.commit
    owed: dict[str, Callable[[], str]] = {}

    def late(ledger: Ledger, *args: Any) -> str:
        name = secrets.token_hex(16)

        def now() -> str:
            with mock.patch.object(privacy.ledger.secrets, "token_hex", return_value=name):
                return reserve(ledger, *args)

        owed[name] = now
        return name

    def committed(ledger: Ledger, name: str) -> None:
        owed.pop(name)()
        commit(ledger, name)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(Ledger, "reserve", late))
        stack.enter_context(mock.patch.object(Ledger, "commit", committed))
        yield


@contextmanager
def turns_forgotten() -> Iterator[None]:
    """A client that was restarted counts its contributions from nothing."""
    with ExitStack() as stack:
        for owner, name, value in (
            (Remains, "contributions", {}),
            (Training, "_charged_in_full", False),
        ):
            stack.enter_context(mock.patch.object(owner, name, lambda *_, v=value, **__: v))
        yield


def _nothing(_: Any) -> Callable[..., None]:
    return lambda *_, **__: None


def _one_stream(real: Callable[[Randomness, str], Any]) -> Callable[[Randomness, str], Any]:
    """One generator over all rounds: what a resumed run draws is not what the whole one drew."""

    def rounds(randomness: Randomness, label: str) -> Any:
        generator = real(randomness, label)(0)
        return lambda _: generator

    return rounds


def _not_ahead(real: Callable[..., None]) -> Callable[..., None]:
    """What a release leaves is kept once the log has it, rather than before."""

    def release(aggregator: Aggregator, *args: Any) -> Any:
        kept: list[Any] = []
        put = vars(aggregator)["_keep_ending"]
        vars(aggregator)["_keep_ending"] = kept.append
        try:
            done = real(aggregator, *args)
        finally:
            vars(aggregator)["_keep_ending"] = put
        put(*kept)
        return done

    return release


def _without_the_cut(real: Callable[..., Any]) -> Callable[..., Any]:
    """What is told of the spend leaves out what attempts that were cut off were charged."""

    def counts(ledger: Ledger, population: str) -> Any:
        held = real(ledger, population)
        return Counter({event: times - (times > 1) for event, times in held.items()})

    return counts


@contextmanager
def attempts_unsynced() -> Iterator[None]:
    """An attempt is noted, and not synced before its first message."""

    def begin(kept: Kept, index: int, attempt: int) -> None:
        with (state.runs_path(vars(kept)["_folder"].name) / "attempts").open("ab") as file:
            file.write(b"%d %d\n" % (index, attempt))
        kept.attempts.append((index, attempt))

    with mock.patch.object(Kept, "begin", begin):
        yield


PLANTS = {
    "charges late": Planted("lost_charges", "masking", (AtPromise("authorised", 2),), charges_late),
    "log not synced": Planted(
        "lost_entries",
        "masking",
        (AtPromise("round-intent", 1),),
        replacing(OsDisk, "sync", _nothing),
    ),
    "checkpoint after the log": Planted(
        "failed_resumes",
        "masking",
        (AtPromise("round-release", 2),),
        replacing(Aggregator, "release", _not_ahead),
    ),
    "checkpoint forgotten": Planted(
        "failed_resumes",
        "masking",
        (AtPromise("opened", 2),),
        replacing(Checkpoints, "confirm", _nothing),
    ),
    "attempt used twice": Planted(
        "failed_resumes",
        "masking",
        (AtPromise("opened", 2),),
        replacing(Start, "attempt", lambda _: lambda *_: 1),
    ),
    "attempt not kept": Planted(
        "repeated",
        "masking",
        (AtPromise("vector", 2),),
        replacing(Kept, "begin", _nothing),
    ),
    "attempt not synced": Planted(
        "repeated",
        "masking",
        (AtPromise("vector", 2),),
        attempts_unsynced,
    ),
    "told too little": Planted(
        "lost_charges",
        "masking",
        (AtPromise("opened", 2),),
        replacing(Ledger, "counts", _without_the_cut),
    ),
    "turns forgotten": Planted("repeated", "masking", (AtPromise("opened", 2),), turns_forgotten),
    "coins from a kept secret": Planted(
        "repeated",
        "masking",
        (AtPromise("opened", 1),),
        replacing(SecureRandom, "from_os", lambda _: lambda: SecureRandom.from_key(bytes(32))),
    ),
    "one stream over the run": Planted(
        "differing",
        "seeded",
        (AtPromise("opened", 2),),
        replacing(Randomness, "rounds", _one_stream),
    ),
}
