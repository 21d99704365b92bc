"""What a run had acknowledged when it was killed, told to its parent the moment it is true.

The hooks stand around the functions whose return is a promise: an entry is in the log, an event is
charged, a sum may be opened, a model is released. Each promise is one line on a pipe, written by
one call, so that it arrives whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import secure_fedmeta.client
from audit.log import AuditLog
from crypto.secure_sum import Done
from privacy.ledger import Ledger
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.exchange import Exchange
from secure_fedmeta.kept import Kept
from secure_fedmeta.progress import Silent
from tests.chaos.calls import Calls

Message = dict[str, Any]
_write = os.write  # the real one: what a hook tells is no call of the run


class Witness:
    """Tells a parent what is promised.

    Args:
        pipe: where to.
        calls: knows what is not yet synced.
    """

    def __init__(self, pipe: int, calls: Calls) -> None:
        self._pipe = pipe
        self._calls = calls
        self._attempt = 0
        self._fatal: str | None = None
        self._left = 0

    def kill_after(self, what: str, times: int) -> None:
        """End this process with SIGKILL once this was told so often."""
        self._fatal, self._left = what, times

    def tell(self, what: str, **facts: object) -> None:
        """One line, at once."""
        _write(self._pipe, json.dumps({"what": what, **facts}).encode() + b"\n")
        if self._fatal in (what, facts.get("kind")):
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, every promise is told, and every call at the disk."""
        with ExitStack() as stack:
            stack.enter_context(self._calls.installed())

            def around(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Any]) -> None:
                stack.enter_context(mock.patch.object(owner, name, wrap(getattr(owner, name))))

            around(AuditLog, "append", self._append)
            around(Ledger, "reserve", self._reserve)
            around(Ledger, "commit", self._commit)
            around(Kept, "begin", self._note)
            around(Aggregator, "open_round", self._open_round)
            around(Exchange, "begin", self._begin)
            around(Exchange, "authorise", self._authorise)
            around(Exchange, "advance", self._advance)
            around(secure_fedmeta.client, "contribution", self._contribution)
            yield

    def _unsynced(self) -> list[str]:
        """What a power cut would take now; leaves follow from the log, pictures from the report."""
        root = self._calls.root
        found = (str(Path(path).relative_to(root)) for path in self._calls.unsynced)
        return sorted(path for path in found if not re.search("/(leaves|plots)(/|$)", path))

    def _append(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def append(log: AuditLog, kind: str, body: Mapping[str, Any]) -> Any:
            done = real(log, kind, body)
            self.tell(
                "entry",
                index=done.index,
                digest=done.digest.hex(),
                kind=kind,
                round=body.get("round"),
                attempt=body.get("attempt"),
                model=body.get("model_after"),
                unsynced=self._unsynced(),
            )
            return done

        return append

    def _reserve(self, real: Callable[..., str]) -> Callable[..., str]:
        def reserve(
            ledger: Ledger, population: str, run: str, index: int, attempt: int, *rest: Any
        ) -> str:
            held = real(ledger, population, run, index, attempt, *rest)
            self.tell("reserved", id=held, who=population, run=run, round=index, attempt=attempt)
            return held

        return reserve

    def _commit(self, real: Callable[..., None]) -> Callable[..., None]:
        def commit(ledger: Ledger, reservation: str) -> None:
            real(ledger, reservation)
            self.tell("committed", id=reservation)

        return commit

    def _note(self, real: Callable[..., None]) -> Callable[..., None]:
        def begin(kept: Kept, index: int, attempt: int) -> None:
            self.tell("noting", round=index, attempt=attempt)  # used up, whether it is told or not
            real(kept, index, attempt)

        return begin

    def _open_round(self, real: Callable[..., Exchange]) -> Callable[..., Exchange]:
        def open_round(aggregator: Aggregator, index: int, attempt: int) -> Exchange:
            exchange = real(aggregator, index, attempt)
            model = vars(aggregator)["_setting"].model_digest(aggregator.model).hex()
            self.tell("round", round=index, attempt=attempt, model=model)
            return exchange

        return open_round

    def _begin(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def begin(exchange: Exchange) -> Any:
            self._attempt = exchange.attempt
            self.tell(
                "begun",
                round=exchange.round,
                attempt=exchange.attempt,
                unsynced=self._unsynced(),
            )
            return real(exchange)

        return begin

    def _authorise(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def authorise(exchange: Exchange, intent: Any) -> Any:
            self.tell(
                "authorised",
                round=exchange.round,
                attempt=exchange.attempt,
                intent=intent.digest.hex(),
            )
            return real(exchange, intent)

        return authorise

    def _advance(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def advance(exchange: Exchange) -> Any:
            step = real(exchange)
            if isinstance(step, Done):
                self.tell("opened", round=exchange.round, attempt=exchange.attempt)
            return step

        return advance

    def _contribution(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def contribution(work: Any, client: str, *args: Any, **named: Any) -> Any:
            vector = real(work, client, *args, **named)
            self.tell(
                "vector",
                client=client,
                round=named["round_index"],
                attempt=self._attempt,
                digest=hashlib.sha256(vector.tobytes()).hexdigest(),
            )
            return vector

        return contribution


class Told(Silent):
    """Progress of a run, told to the parent."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def stage(self, text: str) -> None:
        self._witness.tell("stage", text=text)
