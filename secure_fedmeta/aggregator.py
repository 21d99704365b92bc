"""The aggregator as a state machine: it never holds an unprotected update.

Opening the sum is the release. `record_intent` therefore reserves the budget and makes the intent
durable in the log before the unmask request exists; a crash in between over-counts the budget.
What the run goes on from is handed out to be kept before the log says that an attempt has ended, so
that no release in the log lacks its model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import torch

from audit.canonical import decimal
from audit.errors import AuditError
from audit.log import AuditLog
from crypto.errors import SumAborted
from crypto.keys import Identity
from crypto.secure_sum import Done, Ready
from privacy.accountant import spend_counted
from privacy.errors import BudgetExceeded, LedgerError, OutcomeUnknown, PrivacyError
from privacy.events import Event
from privacy.ledger import Ledger
from privacy.stages import Stage, stage
from secure_fedmeta.charge import tell_accounting
from secure_fedmeta.exchange import Exchange, Intent
from secure_fedmeta.intent import Evidence, facts
from secure_fedmeta.logged import commit, commitment_root, figures
from secure_fedmeta.messages import to_wire
from secure_fedmeta.outcome import ENDED_AT_STEP, Abort, Ending, Release, Standing
from secure_fedmeta.server_opt import ServerOptimiser
from secure_fedmeta.setting import Setting

SALT_BYTES = 32


class Aggregator:
    """Owns the global model, the budget of the run and its log.

    Args:
        setting: the run's public facts.
        identity: the aggregator's signing key.
        standing: what the first round of this process starts from.
        optimiser: what to do with an averaged outer vector.
        ledger: where the budget is kept.
        population: whose budget is spent.
        order: the Renyi order that its grant declares; None: a grant for fixed plans.
        log: the run's audit log.
        salts: secret bytes for the commitments to participation.
        keep_opening: stores the salts of a round where they can be deleted.
        keep_ending: makes durable how an attempt ends, before the log says that it has.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        identity: Identity,
        standing: Standing,
        optimiser: ServerOptimiser,
        ledger: Ledger,
        population: str,
        order: int | None,
        log: AuditLog,
        salts: Callable[[int], bytes],
        keep_opening: Callable[[Mapping[str, object]], None],
        keep_ending: Callable[[Ending], None],
    ) -> None:
        self._setting = setting
        self._identity = identity
        self._optimiser = optimiser
        self._state = standing.state
        self._ledger = ledger
        self._population = population
        self._logged = Counter(standing.charged)
        self._order = order
        self._log = log
        self._salts = salts
        self._keep_opening = keep_opening
        self._keep_ending = keep_ending
        self._reservation: str | None = None
        self._clip = standing.clip

    @property
    def model(self) -> torch.Tensor:
        """The iterate that the next round starts from: `[d] float32`."""
        return self._state.params.to(torch.float32)

    @property
    def clip(self) -> float:
        """The clip bound of the next round."""
        return self._clip

    @property
    def released_model(self) -> torch.Tensor:
        """The model that is handed out: the iterate average where one is configured."""
        return self._state.average.to(torch.float32)

    @property
    def logged(self) -> tuple[Event, ...]:
        """What the log states as charged to the population: before the run, and by it."""
        return tuple(self._logged.elements())

    def affordable_rounds(self) -> int:
        """How many rounds at the worst permitted noise the grants still allow.

        Raises:
            LedgerError: the ledger cannot tell.
        """
        tell_accounting(self._setting.plan)
        return self._ledger.affordable(self._population, self._setting.plan.worst_event())

    def open_round(self, round_index: int, attempt: int) -> Exchange:
        """Start an attempt; nothing is charged and nothing is released yet."""
        model = self.model
        terms = self._setting.terms(
            round_index=round_index,
            attempt=attempt,
            model_digest=self._setting.handout_digest(model, self._clip),
        )
        machine = self._setting.protocol.aggregator(terms, self._identity)
        self._reservation = None
        return Exchange(round_index, attempt, self._clip, to_wire(model), machine)

    def charge_computing(self, exchange: Exchange) -> None:
        """Charge what clients spend by answering at all, where their plan says that they do.

        Whether the round succeeds makes no difference then. Otherwise nothing happens: opening the
        sum is the release, and `record_intent` charges it.

        Raises:
            BudgetExceeded: a grant no longer allows it; nothing was charged, nobody is asked.
            LedgerError: it could not be charged; nobody may be asked.
        """
        plan = self._setting.plan
        if plan.charges_computing:
            self._charge(exchange, plan.worst_event())

    def _charge(self, exchange: Exchange, event: Event) -> None:
        setting = self._setting
        exchange.unlogged = event  # from here on, if an interrupt comes, nobody knows
        try:
            self._reservation = self._ledger.reserve(
                self._population,
                setting.run.hex(),
                exchange.round,
                exchange.attempt,
                event,
                setting.plan.digest(),
            )
        except OutcomeUnknown:
            raise
        except PrivacyError:
            exchange.unlogged = None
            raise

    def record_intent(self, exchange: Exchange, ready: Ready) -> Intent:
        """Charge the round, if it is not yet, and log what is about to be opened.

        Raises:
            BudgetExceeded: a grant no longer allows it; nothing was charged.
            LedgerError: it could not be charged; nothing may be opened.
        """
        setting = self._setting
        event = setting.plan.event(len(ready.survivors))
        if self._reservation is None:
            self._charge(exchange, event)
        cohort = setting.plan.cohort(exchange.round)
        salts = {index: self._salts(SALT_BYTES) for index in cohort}
        self._keep_opening(
            {
                "round": exchange.round,
                "attempt": exchange.attempt,
                "salts": {self._name(index): salt.hex() for index, salt in salts.items()},
            }
        )
        commitments = {
            index: commit(b"participation", salt, self._name(index).encode())
            for index, salt in salts.items()
        }
        contributions = [
            commit(b"contribution", salts[index], exchange.uploads[index])
            for index in ready.survivors
        ]
        appended = self._log.append(
            "round-intent",
            {
                **facts(
                    setting,
                    round_index=exchange.round,
                    attempt=exchange.attempt,
                    survivors=len(ready.survivors),
                    clip=exchange.clip,
                ),
                "cohort_root": commitment_root(commitments.values()),
                "survivor_root": commitment_root(commitments[i] for i in ready.survivors),
                "contribution_root": commitment_root(contributions),
                "counts": {
                    "selected": len(cohort),
                    "reported": len(ready.survivors),
                    "dropped": len(ready.dropped),
                    "rejected": dict(exchange.rejected),
                },
                "reservation": self._reservation,
            },
        )
        self._logged[event] += 1
        exchange.intent, exchange.unlogged = appended.digest, None
        evidence = Evidence(appended.raw, appended.head, self._log.leaves)
        return Intent(appended.digest, evidence.encode())

    def release(self, exchange: Exchange, done: Done) -> Release:
        """Commit the charge, take the server step, keep where it leads, log the release.

        Raises:
            LedgerError: the ledger failed; the sum is not used, and its charge stays.
        """
        if exchange.intent is None or self._reservation is None:
            raise SumAborted("release", "the sum was opened without a logged intent")
        setting, plan = self._setting, self._setting.plan
        self._ledger.commit(self._reservation)
        tell_accounting(plan)
        everything = self._ledger.counts(self._population)
        with stage(Stage.SERVER):
            average = plan.decode(done.total, round_index=exchange.round, clip=exchange.clip)
            beside = plan.beside(done.total, survivors=len(done.contributors), clip=exchange.clip)
            state = self._optimiser.update(self._state, torch.from_numpy(average))
            model = state.params.to(torch.float32)
        released = Release(
            round=exchange.round,
            survivors=len(done.contributors),
            selected=plan.cohort_size,
            rejected=dict(exchange.rejected),
            spend=spend_counted(everything, delta=plan.delta, order=self._order),
            unchecked=done.unchecked,
            clip=exchange.clip,
            protected=beside.metrics,
        )
        after = setting.model_digest(model)
        self._keep_ending(
            Ending(exchange.attempt, released, exchange.intent, state, beside.next_clip, after)
        )
        # Of runs that charge this population at the same time, the log tells nothing: its figures
        # are those of its own entries, so that they can be recomputed from it.
        logged = spend_counted(self._logged, delta=plan.delta, order=self._order)
        self._log.append(
            "round-release",
            {
                "round": exchange.round,
                "attempt": exchange.attempt,
                "intent": exchange.intent.hex(),
                "model_before": setting.model_digest(self.model).hex(),
                "model_after": after.hex(),
                "aggregate": hashlib.sha256(done.total.astype("<i8").tobytes()).hexdigest(),
                "spend": {
                    name: {kind: decimal(value) for kind, value in adversary.epsilon.items()}
                    for name, adversary in logged.adversaries.items()
                },
                "evaluation": None,
                **figures(beside),
            },
        )
        self._state, self._clip = state, beside.next_clip
        return released

    def cut_off(self, exchange: Exchange, error: BaseException) -> None:
        """Log what was charged to a round that an interrupt, or an error of the program, ends.

        The round is not over by that: a resumed run does it again, in another attempt. A round that
        its intent charges stays open in the log, as after a crash. One that is charged before
        clients compute would be in no entry at all. Where the log itself is what failed, nothing
        can be added, and the ledger alone has the charge.
        """
        if exchange.unlogged is not None:
            with suppress(AuditError):
                self._log_abort(exchange, error)

    def abort(self, exchange: Exchange, error: BaseException) -> Abort:
        """End a round without a release; what was or may have been reserved stays so.

        The log says in which step it ended, and never whose fault it was: an entry cannot be
        erased. The full reason is for the operator alone.
        """
        charged = exchange.intent is not None or exchange.unlogged is not None
        aborted = Abort(exchange.round, str(error), charged, isinstance(error, LedgerError))
        after = self._setting.model_digest(self.model)
        self._keep_ending(
            Ending(exchange.attempt, aborted, exchange.intent, self._state, self._clip, after)
        )
        self._log_abort(exchange, error)
        return aborted

    def refuse(self, exchange: Exchange, error: BudgetExceeded) -> None:
        """Log that an attempt was not affordable. The round has not ended: it never began."""
        self._log_abort(exchange, error)

    def _log_abort(self, exchange: Exchange, error: BaseException) -> None:
        reason = f"ended at {'an error' if isinstance(error, Exception) else 'an interrupt'}"
        if isinstance(error, SumAborted):
            reason = f"{ENDED_AT_STEP}{error.step}"
        elif isinstance(error, BudgetExceeded | LedgerError):
            reason = "ended at the budget"
        unlogged = exchange.unlogged
        self._log.append(
            "round-abort",
            {
                "round": exchange.round,
                "attempt": exchange.attempt,
                "intent": None if exchange.intent is None else exchange.intent.hex(),
                "reason": reason,
                "charged": exchange.intent is not None or unlogged is not None,
                **({} if unlogged is None else {"event": unlogged.to_json()}),
            },
        )
        if unlogged is not None:
            self._logged[unlogged] += 1

    def _name(self, index: int) -> str:
        return self._setting.roster.members[index - 1].name
