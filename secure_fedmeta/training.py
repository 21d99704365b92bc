"""The loop around the rounds: budget, progress, evaluation, and what is left on disk."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from audit.log import AuditLog
from audit.note import LogSigner
from audit.pin import PinStore
from crypto.progress import listening
from privacy.accountant import BUDGETED
from privacy.errors import BudgetExceeded, LedgerError
from privacy.events import Event
from privacy.ledger_limits import MAX_AFFORDABLE
from privacy.stages import Stage, stage
from secure_fedmeta import state
from secure_fedmeta.aggregator import Abort, Aggregator, Release
from secure_fedmeta.budget import Budget, client_charges, open_budget
from secure_fedmeta.charge import Charges, with_room
from secure_fedmeta.config import Config
from secure_fedmeta.evaluation import Evaluation, Interval
from secure_fedmeta.losses import Loss
from secure_fedmeta.pipeline import Parties, Parts, assemble, found_parties
from secure_fedmeta.progress import Instrument, Progress, Silent, Started
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.reporting import write_reports
from secure_fedmeta.results import (
    CONFIG,
    METRICS,
    MODEL,
    REPORT,
    draw_curves,
    finite,
    mean_traffic,
    write_json,
)
from secure_fedmeta.results import report as closing_report
from secure_fedmeta.rounds import run_round
from secure_fedmeta.run_log import now, started_log
from secure_fedmeta.scoring import closing_arms, personaliser
from secure_fedmeta.tasks import Site
from secure_fedmeta.transport import Traffic
from secure_fedmeta.transport.registry import TRANSPORTS
from secure_fedmeta.workspace import Workspace, log_origin, name_run

Status = Literal["completed", "budget", "aborted"]


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        directory: config, log, metrics, model, report and curves.
        status: "completed"; "budget" where the grant ended it; "aborted" where a round did.
        report: the content of report.json.
        model: the released parameters `[d] float32`.
        charged: what the run charged its population, by its log.
        records: one metrics line per round, as in metrics.jsonl.
    """

    directory: Path
    status: Status
    report: dict[str, Any]
    model: torch.Tensor
    charged: Counter[Event]
    records: Sequence[Mapping[str, Any]]


def run(
    config: Config,
    *,
    out: Path = Path("runs"),
    progress: Progress | None = None,
    module: nn.Module | None = None,
    loss: str | Loss | None = None,
    site: Site | None = None,
    instruments: Sequence[Instrument] = (),
) -> RunResult:
    """Train a meta-model as configured, and leave its proof in a new directory under `out`.

    Args:
        config: the settings.
        out: folder of run directories; `out/latest` will point at the new one.
        progress: told about stages and rounds; None is silent.
        module: the caller's own network instead of `config.model`.
        loss: the caller's own loss instead of the source's.
        site: where the source is read; None: the current folder, with this user's block secret.
        instruments: watch the rounds, and leave files of their own in the directory.

    Raises:
        ConfigError, DataError: before anything is computed or charged.
        LedgerError: the ledger cannot be used.
        AuditError: the log cannot be written; the run stops where it is.
    """
    progress = progress or Silent()
    progress.stage("reading data and sizing the noise")
    parts = assemble(config, module=module, loss=loss, site=site)
    for instrument in instruments:
        instrument.check(parts.source.info)
    seed = config.not_private
    randomness = Randomness(None if seed is None else seed.seed)
    # The run's name is no secret: a seed must not give it twice, the ledger charges a name once.
    run_id = name_run(config.name, moment=now(), suffix=os.urandom(3).hex())
    signer = LogSigner.generate(log_origin(run_id), state.signing_seed(os.urandom))
    name = os.urandom(32)
    charges = client_charges(config, parts, name)
    parties = found_parties(parts, name, randomness, log_key=signer.vkey, charges=charges)
    budget = open_budget(config, parts.plan, run_id=run_id, public=parts.source.info.public)
    workspace = Workspace.create(out, run_id)
    (workspace.path / CONFIG).write_text(config.to_toml(), encoding="utf-8")
    vkey = signer.vkey
    with ExitStack() as stack:
        log = stack.enter_context(started_log(workspace, signer, parties, budget, randomness))
        for instrument in instruments:
            stack.enter_context(instrument.watching(workspace.path))
        training = Training(parts, parties, budget, log, workspace, randomness, progress, charges)
        progress.started(training.facts(workspace.path))
        with (workspace.path / METRICS).open("w", encoding="utf-8") as metrics:
            for record in training.rounds():
                metrics.write(json.dumps(record, allow_nan=False) + "\n")
                metrics.flush()
                PinStore(state.state_directory()).save(workspace.run_id, vkey, log.head)
                progress.round_done(record)
                for instrument in instruments:
                    instrument.round_done(record)
        found = training.report(vkey)
        for instrument in instruments:
            instrument.finished(found)
        (workspace.path / MODEL).write_bytes(parts.learner.spec.save(training.model))
        progress.stage("writing the report")
        write_json(workspace.path / REPORT, found)
        draw_curves(workspace.plots, training.records, found)
        written = write_reports(workspace.path, found, training.records)
        names = (CONFIG, METRICS, MODEL, REPORT, *written)
        log.append("report-exported", {"files": {n: _digest(workspace.path / n) for n in names}})
        PinStore(state.state_directory()).save(workspace.run_id, vkey, log.head)
    workspace.point_latest()
    progress.ended(training.status)
    ended = (training.status, found, training.model, training.charged, training.records)
    return RunResult(workspace.path, *ended)


class Training:
    """The rounds of one run: stops before the first one that the grant does not afford.

    Attributes:
        status: how the run ended, or "completed" while it goes on.
        records: one metrics line per round so far.
    """

    def __init__(
        self,
        parts: Parts,
        parties: Parties,
        budget: Budget,
        log: AuditLog,
        workspace: Workspace,
        randomness: Randomness,
        progress: Progress,
        charges: Charges,
    ) -> None:
        self.status: Status = "completed"
        self.records: list[dict[str, Any]] = []
        self._parts = parts
        self._setting = parties.setting
        self._clients = tuple(parties.clients)
        self._budget = budget
        self._charges = charges
        self._log = log
        self._randomness = randomness
        self._progress = progress
        self._notes: list[str] = []
        self._seconds = 0.0
        self._affordable: int | None = None
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
            model=parts.initial(),
            optimiser=parts.optimiser,
            ledger=budget.ledger,
            population=budget.population,
            prior=budget.prior,
            order=budget.order,
            log=log,
            salts=randomness.stream("salts"),
            keep_opening=workspace.keep_opening,
        )
        wire = parts.config.transport
        self._transport = TRANSPORTS.get(wire.name)(
            parties.endpoints,
            wire,
            faults=randomness.generator("faults"),
        )

    @property
    def model(self) -> torch.Tensor:
        """The released parameters so far: `[d] float32`."""
        return self._aggregator.released_model

    @property
    def charged(self) -> Counter[Event]:
        """What the log states as charged by this run."""
        return Counter(self._aggregator.logged) - Counter(self._budget.prior)

    def facts(self, directory: Path) -> Started:
        """What the one who watches is told before the first round."""
        return Started(
            directory=directory,
            rounds=self._parts.config.training.rounds,
            population=self._budget.population,
            granted=self._budget.epsilon,
            metric=self._evaluation.metric if self._parts.held_out else None,
            records=tuple(self.records),
        )

    def rounds(self) -> Iterator[dict[str, Any]]:
        """Run the configured rounds; yields the metrics line of each as it ends."""
        self._progress.stage("training")
        planned = self._parts.config.training.rounds
        for index in range(1, planned + 1):
            began, carried = time.monotonic(), self._traffic()
            if (reason := self._clients_without_room(index)) is not None:
                self._stop_for_budget(index, reason)
                return
            outcome = self._round(index)
            if outcome is None:
                grant = f"epsilon {self._budget.epsilon:g} for {self._budget.population}"
                self._stop_for_budget(index, f"the grant of {grant} afforded")
                return
            seconds = time.monotonic() - began
            self._seconds += seconds
            record = self._record(outcome, seconds, carried)
            self.records.append(record)
            yield record
            if isinstance(outcome, Abort) and (
                outcome.ends_run or self._parts.config.training.on_abort == "stop"
            ):
                self.status = "aborted"
                self._notes.append(f"round {index} could not complete: {outcome.reason}")
                return
        if not any(record["status"] == "released" for record in self.records):
            self.status = "aborted"
            self._notes.append("no round could complete: the model is the untrained one")

    def _round(self, index: int) -> Release | Abort | None:
        """One round; None where the grants do not allow it, or not any more."""
        told = listening(lambda text: self._progress.stage(f"training: {text}"))
        with told, stage(Stage.ROUND):
            self._affordable = None
            try:
                self._affordable = affordable = self._aggregator.affordable_rounds()
            except LedgerError as error:
                return self._aggregator.abort(self._aggregator.open_round(index, 1), error)
            if affordable < 1:
                return None
            try:
                return run_round(self._aggregator, self._transport, round_index=index, attempt=1)
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
            traffic=self._traffic(),
            upload=self._upload_bytes(),
            seconds=self._seconds,
            log=self._log,
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
        charged = sum(record.get("charged", True) for record in self.records)
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

    def _traffic(self) -> dict[int, Traffic]:
        """What each client has sent and received so far."""
        return {index: replace(self._transport.traffic[index]) for index in self._clients}

    def _record(
        self, outcome: Release | Abort, seconds: float, carried: Mapping[int, Traffic]
    ) -> dict[str, Any]:
        """The metrics line of a round before which the clients had `carried` so much."""
        now = self._traffic()
        moved = {
            index: Traffic(now[index].sent - one.sent, now[index].received - one.received)
            for index, one in carried.items()
        }
        limit = self._affordable
        record: dict[str, Any] = {
            "round": outcome.round,
            "seconds": round(seconds, 4),
            "bytes": mean_traffic(moved),
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
        settings = self._parts.config.training
        due = outcome.round in (1, settings.rounds) or outcome.round % settings.evaluate_every == 0
        return record | self._score() if due and self._parts.held_out else record

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


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
