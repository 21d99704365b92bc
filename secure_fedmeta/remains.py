"""What a run that was cut off left: its log, its checkpoints and what it kept, put in order.

The log decides. A release that it holds stands, and the checkpoint that was durable before it has
its model. An attempt that it does not know, or whose intent has no outcome, was cut off: what it
was charged stays charged and is logged, and its round is done again in another attempt, with fresh
coins and noise. To put in order what is in order changes nothing, so that a resumption may be cut
off, too.
"""

from __future__ import annotations

import hmac
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from audit.entry import Genesis
from audit.log import AuditLog
from crypto.codec import frame
from crypto.keys import derive
from privacy.errors import LedgerError
from privacy.events import Event
from privacy.ledger import Ledger
from privacy.ledger_limits import spent_of
from privacy.plan import PrivacyPlan
from secure_fedmeta import __version__
from secure_fedmeta.budget import Budget, grant_body
from secure_fedmeta.checkpoint import Checkpoint, Checkpoints, traffic_of
from secure_fedmeta.config import Config
from secure_fedmeta.errors import NothingBegun, RunDirectoryError, StateError
from secure_fedmeta.kept import Facts, Kept
from secure_fedmeta.outcome import Standing
from secure_fedmeta.pipeline import Parts
from secure_fedmeta.resumption import NOTHING, CutOff, Found, Start
from secure_fedmeta.run_log import product
from secure_fedmeta.setting import Setting
from secure_fedmeta.told import Moment, Told


@dataclass
class Remains:
    """A run that was cut off: its log, its checkpoints, and what it kept.

    Args:
        log: open, locked and checked against its pin.
        path: its file of entries.
        kept: of the state directory.
        checkpoints: of the run directory.

    Attributes:
        told: what the log tells.
        found_entries: how many entries there were when the log was opened.

    Raises:
        NothingBegun: the log has not begun.
        StateError: the state directory does not know an attempt of the log.
    """

    log: AuditLog
    path: Path
    kept: Kept
    checkpoints: Checkpoints
    told: Told = field(init=False)
    found_entries: int = field(init=False)

    def __post_init__(self) -> None:
        self._read_again()
        self.found_entries = self.log.size
        if self.told.genesis is None or self.told.population is None:
            raise NothingBegun("the run was cut off before its log had begun: start it again")
        if unknown := self.told.moments - set(self.kept.attempts):
            raise StateError(
                f"the log tells of attempts {sorted(unknown)} that the state directory does not "
                "know: it was put back from an older copy. Restore the newest one"
            )

    @property
    def run(self) -> bytes:
        """32 bytes that name the run."""
        return bytes.fromhex(self._genesis.run)

    @property
    def population(self) -> str:
        """Whose budget the run charges."""
        if self.told.population is None:
            raise NothingBegun("the log has no grant")
        return self.told.population

    @property
    def _genesis(self) -> Genesis:
        if self.told.genesis is None:
            raise NothingBegun("the log is empty")
        return self.told.genesis

    def check_config(self, config: Config) -> None:
        """Refuse settings that are not those that the run began with.

        Raises:
            RunDirectoryError: another digest than the log's.
        """
        began = self._genesis
        if config.digest().hex() != began.config_digest:
            other = f", resume with release {began.product_version}, which began it,"
            raise RunDirectoryError(
                "config.toml is not the one that the run began with: put that one back"
                f"{'' if began.product_version == __version__ else other} or start a new run"
            )

    def check_parts(self, facts: Facts, plan: PrivacyPlan) -> None:
        """Refuse other data, another network or loss than the run began with.

        Raises:
            RunDirectoryError: says which.
        """
        ours = self.kept.facts
        if facts.loss != ours.loss:
            wanted = "its own loss" if ours.loss is None else f"loss {ours.loss!r}"
            raise RunDirectoryError(f"the run began with {wanted}: give the same one")
        if facts.model != ours.model:
            raise RunDirectoryError(
                "the network, or its initial weights, is not the one that the run began with: give "
                "the same module"
            )
        if facts.data != ours.data:
            raise RunDirectoryError(
                "the data are not those that the run began with: put those back, or start a new run"
            )
        if plan.digest().hex() != self._genesis.plan_digest:
            raise RunDirectoryError(
                "the privacy plan is not the one that the run began with: resume it with the "
                f"release that began it, {self._genesis.product_version}"
            )

    def check_setting(self, setting: Setting) -> None:
        """Refuse other parties than the run began with.

        Raises:
            StateError: the kept secret does not give the roster of the log.
        """
        if setting.roster.digest.hex() != self._genesis.roster_digest:
            raise StateError(
                "what the state directory kept does not give the parties that the log names: it is "
                "of another run, or the clients are others"
            )

    def contributions(self, plan: PrivacyPlan, *, private: bool) -> dict[int, int]:
        """Roster index -> how often that client contributed, at most.

        Every attempt counts of which a message may have left. Under a seed the attempts at one
        round are one contribution bit for bit, and count once.
        """
        attempts = self.kept.attempts
        rounds = [index for index, _ in attempts] if private else {index for index, _ in attempts}
        found: Counter[int] = Counter()
        for index in rounds:
            found.update(plan.cohort(index))
        return dict(found)

    def standing(self, parts: Parts) -> Checkpoint | None:
        """The checkpoint that the log confirms; None before any attempt has ended.

        Raises:
            RunDirectoryError: it is missing, was changed, or is not that of the log's model.
        """
        files, latest = self.checkpoints, self.told.last_release
        try:
            coming = files.unconfirmed()
        except RunDirectoryError:  # where the log needs it, the current one will not do
            coming = None
        if coming is not None and self._is_told(coming):
            files.confirm()
        else:
            files.discard()
        found = files.current()
        if found is None:
            if self.told.last_ended != (0, 0):
                raise RunDirectoryError(
                    "the checkpoint is missing: put back the newest copy of the run directory"
                )
            return None
        model = self.kept.facts.model if latest is None else latest[1].model_after
        after = self.told.last_ended
        moment = (found.round, found.attempt)
        held = parts.learner.spec.digest(found.state.params.to(torch.float32)).hex()
        if moment < after or (found.model, held) != (model, model) or not self._is_told(found):
            raise RunDirectoryError(
                f"the checkpoint, of round {found.round}, does not hold the model that the log "
                "names: it is older, or of another run. Put back the newest copy"
            )
        return found

    def _is_told(self, checkpoint: Checkpoint) -> bool:
        """Whether the log says of the attempt what the checkpoint does."""
        moment = (checkpoint.round, checkpoint.attempt)
        if checkpoint.run != self.run:
            return False
        if checkpoint.outcome == "released":
            release = self.told.released.get(moment)
            return release is not None and (release.intent, release.model_after) == (
                checkpoint.intent,
                checkpoint.model,
            )
        abort = self.told.aborted.get(moment)
        return abort is not None and abort.intent == checkpoint.intent

    def settle(self, ledger: Ledger, population: str) -> None:
        """Log what attempts that were cut off were charged; done again it changes nothing.

        Raises:
            StateError: the ledger was charged for an attempt that the state directory does not
                know.
            RunDirectoryError: the ledger knows of a sum that was opened, of which the log does
                not know the intent.
        """
        told, stated = self.told, self.told.moments
        charges = ledger.attempts(self.run.hex(), population)
        if lost := {moment for moment, charge in charges.items() if charge.opened} - stated:
            raise RunDirectoryError(
                f"the ledger notes that sums of (round, attempt) {sorted(lost)} were opened, of "
                "which the log tells nothing: it was put back from an older copy. Restore the "
                "newest one"
            )
        if told.open is not None:
            (index, attempt), intent = told.open
            self._log_abort(index, attempt, intent=intent, event=None)
        for moment, charge in charges.items():
            if moment in stated:
                continue
            if moment not in self.kept.attempts:
                raise StateError(
                    f"the ledger was charged for attempt {moment}, which the state directory does "
                    "not know: it was put back from an older copy. Restore the newest one"
                )
            self._log_abort(*moment, intent=None, event=charge.event)
        self._read_again()

    def log_grants(self, budget: Budget) -> None:
        """Log the grants that are others than the log states."""
        for grant in budget.grants:
            body = grant_body(grant)
            if self.told.grants.get(body["adversary"]) != body:
                self.log.append("budget-granted", body)
        self._read_again()

    def start(self, parts: Parts, checkpoint: Checkpoint | None, *, parties: int) -> Start:
        """From where the run goes on; everything that was cut off is settled."""
        attempts: dict[int, int] = {}
        for index, attempt in self.kept.attempts:
            attempts[index] = max(attempt, attempts.get(index, 0))
        charged = self.told.prior + self.told.charged
        done = 0 if checkpoint is None else checkpoint.round
        cut_off = tuple(
            CutOff(index, attempt, self._was_charged((index, attempt)))
            for index, attempt in self.kept.attempts
            if index > done or attempt < attempts[index]
        )
        if checkpoint is None:
            fresh = Standing.fresh(parts.optimiser, parts.initial(), parts.plan)
            nothing = torch.zeros((parties, 2), dtype=torch.int64)
            standing = replace(fresh, charged=charged)
            return Start(0, attempts, standing, nothing, 0.0, None, NOTHING, cut_off)
        return Start(
            done=done,
            attempts=attempts,
            standing=Standing(checkpoint.state, checkpoint.clip, charged),
            traffic=traffic_of(checkpoint.traffic, parties),
            seconds=checkpoint.seconds,
            pending=checkpoint.record,
            metrics=checkpoint.metrics,
            cut_off=cut_off,
        )

    def log_resumption(self, start: Start) -> None:
        """Log that the run goes on, by which code, and from where."""
        index = start.done + 1
        attempt = start.attempt(index)
        entries = self.found_entries
        self.log.append(
            "resumed", {"round": index, "attempt": attempt, "entries": entries, **product()}
        )

    def found(self, run_id: str, start: Start, budget: Budget, parts: Parts) -> Found:
        """What to tell of it."""
        genesis = self._genesis
        index = start.done + 1
        affordable: int | None = None
        spent: float | None = None
        with suppress(LedgerError):  # the first round will say why, or ask again
            affordable = budget.ledger.affordable(budget.population, parts.plan.worst_event())
            spent = spent_of(budget.grants[0], budget.ledger.counts(budget.population))
        planned = parts.config.training.rounds
        left = index <= planned and self.told.charged.total() < planned
        return Found(
            run_id=run_id,
            entries=self.found_entries,
            released=len(self.told.released),
            aborted=start.done - len(self.told.released),
            planned=planned,
            cut_off=start.cut_off,
            next=(index, start.attempt(index)) if left else None,
            affordable=affordable,
            spent=spent,
            granted=budget.epsilon,
            population=budget.population,
            began_with=genesis.product_version,
            other_code=genesis.code_digest != product()["code_digest"],
        )

    def _was_charged(self, moment: Moment) -> bool:
        abort = self.told.aborted.get(moment)
        return abort is not None and abort.charged

    def _log_abort(
        self, index: int, attempt: int, *, intent: bytes | None, event: Event | None
    ) -> None:
        body: dict[str, object] = {
            "round": index,
            "attempt": attempt,
            "intent": None if intent is None else intent.hex(),
            "reason": "ended when the run was cut off",
            "charged": True,
        }
        self.log.append(
            "round-abort", body if event is None else {**body, "event": event.to_json()}
        )

    def _read_again(self) -> None:
        self.told = Told.by(self.path, size=self.log.size)


def facts_of(parts: Parts, secret: bytes, *, folder: str) -> Facts:
    """What a resumed run must find again.

    Args:
        parts: the checked run.
        secret: 32 bytes of the run; data are digested under a key of it, so that the digest tells
            nobody else whether he guessed them.
        folder: where relative paths in the source's options start.
    """
    digest = hmac.new(derive(secret, "fedmeta/data/v1"), digestmod="sha256")
    for name in (*parts.training, *parts.held_out):
        held = parts.source.client(name)
        digest.update(frame(name, *(part for array in (held.x, held.y) for part in _array(array))))
        for block in held.blocks:
            user = b"" if block.user is None else block.user.encode()
            digest.update(frame(block.id, user, *_array(block.x), *_array(block.y)))
    return Facts(
        folder=folder,
        model=parts.learner.spec.digest(parts.initial()).hex(),
        data=digest.hexdigest(),
        loss=parts.loss if isinstance(parts.loss, str) else None,
    )


def _array(array: NDArray[np.float32]) -> tuple[bytes, bytes, bytes]:
    """Shape, type and values."""
    return (
        str(array.shape).encode(),
        array.dtype.str.encode(),
        np.ascontiguousarray(array).tobytes(),
    )
