"""The rounds of a run, one after the other, and what is kept on the way to resume it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from audit.log import AuditLog
from crypto.progress import listening
from privacy.accountant import BUDGETED
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import Event
from privacy.ledger_limits import MAX_AFFORDABLE
from privacy.stages import Stage, stage
from secure_fedmeta.aggregator import Aggregator
from secure_fedmeta.budget import Budget
from secure_fedmeta.charge import Charges, with_room
from secure_fedmeta.checkpoint import Checkpoint, Checkpoints
from secure_fedmeta.evaluation import Evaluation, Interval
from secure_fedmeta.kept import Kept
from secure_fedmeta.metrics import Metrics
from secure_fedmeta.outcome import Abort, Ending, Release
from secure_fedmeta.pipeline import Parties, Parts
from secure_fedmeta.progress import Progress, Started
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.results import finite, mean_traffic
from secure_fedmeta.results import report as closing_report
from secure_fedmeta.resumption import CutOff, Start
from secure_fedmeta.rounds import run_round
from secure_fedmeta.scoring import closing_arms, personaliser
from secure_fedmeta.transport import Traffic
from secure_fedmeta.transport.registry import TRANSPORTS
from secure_fedmeta.workspace import Workspace

Status = Literal["completed", "budget", "aborted"]


@dataclass(frozen=True)
class Files:
    """What a run writes while it goes on.

    Attributes:
        workspace: its directory.
        log: its audit log, open.
        metrics: a line per round.
        checkpoints: what it goes on from.
        kept: its folder in the state directory.
    """

    workspace: Workspace
    log: AuditLog
    metrics: Metrics
    checkpoints: Checkpoints
    kept: Kept


class Training:
    """The rounds of one run: stops before the first one that the grant does not afford.

    A new run and a resumed one differ in where they start, and in nothing else.

    Attributes:
        status: how the run ended, or "completed" while it goes on.
    """

    def __init__(
        self,
        parts: Parts,
        parties: Parties,
        budget: Budget,
        files: Files,
        start: Start,
        randomness: Randomness,
        progress: Progress,
        charges: Charges,
    ) -> None:
        self.status: Status = "completed"
        self._parts = parts
        self._setting = parties.setting
        self._clients = parties.clients
        self._files = files
        self._start = start
        self._began = 0.0
        self._affordable: int | None = None
        self._pending: dict[str, Any] = {}
        self._carried = start.traffic
        self._budget = budget
        self._charges = charges
        self._randomness = randomness
        self._progress = progress
        self._notes = [_note(one) for one in start.cut_off]
        self._seconds = start.seconds
        self._evaluation = Evaluation(
            parts.source,
            parts.held_out,
            support=parts.source.info.k_support,
            repeats=parts.config.evaluation.repeats,
        )
        self._personaliser = personaliser(parts)
        self._aggregator = Aggregator(
            parties.setting,
            identity=parties.aggregator,
            standing=start.standing,
            optimiser=parts.optimiser,
            ledger=budget.ledger,
            population=budget.population,
            order=budget.order,
            log=files.log,
            salts=randomness.stream("salts"),
            keep_opening=files.workspace.keep_opening,
            keep_ending=self._keep,
        )
        wire = parts.config.transport
        self._transport = TRANSPORTS.get(wire.name)(
            parties.endpoints,
            wire,
            faults=randomness.rounds("faults"),
        )

    @property
    def model(self) -> torch.Tensor:
        """The released parameters so far: `[d] float32`."""
        return self._aggregator.released_model

    @property
    def charged(self) -> Counter[Event]:
        """What the log states as charged by this run."""
        return Counter(self._aggregator.logged) - Counter(self._budget.prior)

    def facts(self) -> Started:
        """What the one who watches is told before the first round."""
        return Started(
            directory=self._files.workspace.path,
            rounds=self._parts.config.training.rounds,
            population=self._budget.population,
            granted=self._budget.epsilon,
            metric=self._evaluation.metric if self._parts.held_out else None,
            records=tuple(self.records),
        )

    @property
    def records(self) -> Sequence[Mapping[str, Any]]:
        """One metrics line per round so far."""
        return self._files.metrics.records

    def rounds(self) -> Iterator[Mapping[str, Any]]:
        """Run the rounds that are left; yields the metrics line of each as it is durable."""
        self._progress.stage("training")
        planned = self._parts.config.training.rounds
        if self._start.pending is not None:
            yield self._written(self._start.pending)
            if self._start.pending["status"] == "aborted" and self._stops_on_abort():
                self._abort_run(self._start.done, str(self._start.pending["reason"]))
                return
        for index in range(self._start.done + 1, planned + 1):
            self._began, self._carried = time.monotonic(), self._traffic()
            if self._charged_in_full():
                self._notes.append(
                    f"all {planned} charges of the plan are used up, by attempts that were cut off "
                    f"too: stopped before round {index}"
                )
                break
            if self._without_turn(index):
                continue
            if (reason := self._clients_without_room(index)) is not None:
                self._stop_for_budget(index, reason)
                return
            outcome = self._round(index)
            if outcome is None:
                grant = f"epsilon {self._budget.epsilon:g} for {self._budget.population}"
                self._stop_for_budget(index, f"the grant of {grant} afforded")
                return
            self._files.checkpoints.confirm()
            yield self._written(self._pending)
            if isinstance(outcome, Abort) and (outcome.ends_run or self._stops_on_abort()):
                self._abort_run(index, outcome.reason)
                return
        if not any(record["status"] == "released" for record in self.records):
            self.status = "aborted"
            self._notes.append("no round could complete: the model is the untrained one")

    def _stops_on_abort(self) -> bool:
        return self._parts.config.training.on_abort == "stop"

    def _abort_run(self, index: int, reason: str) -> None:
        self.status = "aborted"
        self._notes.append(f"round {index} could not complete: {reason}")

    def _charged_in_full(self) -> bool:
        """Whether the plan has no charge left, since attempts that were cut off have used some."""
        return self.charged.total() >= self._parts.config.training.rounds

    def _without_turn(self, index: int) -> bool:
        """Whether attempts that were cut off have used up the turns of too many of its clients."""
        plan = self._parts.plan
        able = sum(self._clients[client].has_turn for client in plan.cohort(index))
        if able >= plan.min_survivors:
            return False
        self._notes.append(
            f"round {index} was not run: attempts that were cut off used up turns, so that "
            f"{able} of its clients have one left, fewer than min_survivors {plan.min_survivors}"
        )
        return True

    def _round(self, index: int) -> Release | Abort | None:
        """One round; None where the grants do not allow it, or not any more."""
        attempt = self._start.attempt(index)
        told = listening(lambda text: self._progress.stage(f"training: {text}"))
        with told, stage(Stage.ROUND):
            self._affordable = None
            try:
                self._affordable = affordable = self._aggregator.affordable_rounds()
            except LedgerError as error:
                self._files.kept.begin(index, attempt)
                return self._aggregator.abort(self._aggregator.open_round(index, attempt), error)
            if affordable < 1:
                return None
            self._files.kept.begin(index, attempt)
            try:
                return run_round(
                    self._aggregator, self._transport, round_index=index, attempt=attempt
                )
            except BudgetExceeded:  # another run spent the rest in the meantime
                return None

    def report(self, vkey: str) -> dict[str, Any]:
        """The content of report.json."""
        try:
            events = self._budget.ledger.events(self._budget.population)
            affordable: int | None = self._aggregator.affordable_rounds()
        except LedgerError as error:
            events, affordable = self._aggregator.logged, None
            self._notes.append(
                f"the ledger could not be read ({error}): the figures are those of the run's log"
            )
        arms, not_run = closing_arms(
            self._parts,
            self._evaluation,
            self.model,
            self._randomness,
            announce=self._progress.stage,
        )
        return closing_report(
            self._parts,
            status=self.status,
            records=self.records,
            notes=self._notes,
            arms=arms,
            not_run=not_run,
            events=events,
            budget=self._budget,
            affordable=affordable,
            traffic=self._of_clients(self._traffic()),
            upload=self._upload_bytes(),
            seconds=self._seconds,
            log=self._files.log,
            vkey=vkey,
            private=self._randomness.private,
        )

    def _upload_bytes(self) -> int:
        """Bytes of one client's protected vector; every round has as many."""
        setting, initial = self._setting, self._parts.initial()
        digest = setting.handout_digest(initial, setting.plan.clip)
        terms = self._setting.terms(round_index=1, attempt=1, model_digest=digest)
        return self._parts.protocol.upload_bytes(terms)

    def _stop_for_budget(self, index: int, reason: str) -> None:
        planned = self._parts.config.training.rounds
        charged = self.charged.total()
        self.status = "budget"
        self._notes.append(f"{reason} {charged} of {planned} rounds; stopped before round {index}")

    def _clients_without_room(self, index: int) -> str | None:
        """Why too few clients would answer; None where enough do. Their ledgers are all here."""
        plan = self._parts.plan
        names = [self._parts.training[client - 1] for client in plan.cohort(index)]
        found = with_room(self._charges, names, enough=plan.min_survivors)
        if found == plan.min_survivors:
            return None
        return (
            f"the own ledgers of only {found} of {len(names)} clients have room for another round, "
            f"fewer than min_survivors {plan.min_survivors}: they afforded"
        )

    def _keep(self, ending: Ending) -> None:
        """Make durable how a round ends, before the log says that it has."""
        outcome = ending.outcome
        seconds = time.monotonic() - self._began
        self._seconds += seconds
        self._pending = self._record(outcome, seconds)
        self._files.checkpoints.put(
            Checkpoint(
                run=self._setting.run,
                round=outcome.round,
                attempt=ending.attempt,
                outcome="aborted" if isinstance(outcome, Abort) else "released",
                intent=None if ending.intent is None else ending.intent.hex(),
                model=ending.model.hex(),
                state=ending.state,
                clip=ending.clip,
                record=self._pending,
                metrics=self._files.metrics.mark,
                traffic=self._traffic(),
                seconds=self._seconds,
            )
        )

    @property
    def _everybody(self) -> Sequence[int]:
        return sorted(self._transport.traffic)

    def _traffic(self) -> torch.Tensor:
        """Bytes sent and received by each party over the whole run: `[parties, 2]` int64."""
        found = self._transport.traffic
        rows = [(found[index].sent, found[index].received) for index in self._everybody]
        return self._start.traffic + torch.tensor(rows, dtype=torch.int64)

    def _of_clients(self, traffic: torch.Tensor) -> dict[int, Traffic]:
        """The rows of the clients, by roster index."""
        rows = zip(self._everybody, traffic.tolist(), strict=True)
        return {index: Traffic(*row) for index, row in rows if index in self._clients}

    def _written(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """The line with the scores of its model, once it is durable."""
        settings, index = self._parts.config.training, record["round"]
        due = index in (1, settings.rounds) or index % settings.evaluate_every == 0
        line = dict(record) | (self._score() if due and self._parts.held_out else {})
        self._files.metrics.append(line)
        return line

    def _record(self, outcome: Release | Abort, seconds: float) -> dict[str, Any]:
        limit = self._affordable
        record: dict[str, Any] = {
            "round": outcome.round,
            "seconds": round(seconds, 4),
            "bytes": mean_traffic(self._of_clients(self._traffic() - self._carried)),
            "affordable": None if limit is None or limit >= MAX_AFFORDABLE else limit,
        }
        if isinstance(outcome, Abort):
            record |= {"status": "aborted", "reason": outcome.reason, "charged": outcome.charged}
        else:
            record |= {
                "status": "released",
                "survivors": outcome.survivors,
                "selected": outcome.selected,
                "unchecked": list(outcome.unchecked),
                "rejected": dict(outcome.rejected),
                "epsilon": outcome.spend.worst,
                "epsilon_by_adversary": {
                    str(name): outcome.spend.adversaries[name].claimed for name in BUDGETED
                },
                "granted": self._budget.epsilon,
                "clip": outcome.clip,
                "protected": {
                    name: {"value": found.value, "noise_std": found.std}
                    for name, found in outcome.protected.items()
                },
            }
        return record

    def _score(self) -> dict[str, Any]:
        learner = self._personaliser
        with stage(Stage.EVALUATE):
            adapted = self._evaluation.adapted(learner, self.model)
            unadapted = self._evaluation.unadapted(learner, self.model)
        return {
            "metric": self._evaluation.metric,
            "unadapted": finite(Interval.over(unadapted).mean),
            "adapted": finite(Interval.over(adapted).mean),
        }


def _note(one: CutOff) -> str:
    fate = "stays charged" if one.charged else "was not charged"
    return f"attempt {one.attempt} at round {one.round} was cut off and {fate}"
