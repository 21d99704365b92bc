"""A run from its config, or from where it was cut off, to what it leaves on disk."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audit import files as durable
from audit.note import LogSigner
from privacy.events import Event
from secure_fedmeta import state
from secure_fedmeta.budget import client_charges, open_budget, reopened_budget
from secure_fedmeta.checkpoint import Checkpoints
from secure_fedmeta.config import Config, load_config
from secure_fedmeta.course import Files, Status, Training
from secure_fedmeta.errors import RunEnded
from secure_fedmeta.kept import Kept
from secure_fedmeta.losses import Loss
from secure_fedmeta.metrics import Metrics
from secure_fedmeta.pipeline import Parts, assemble, found_parties
from secure_fedmeta.progress import Instrument, Progress, Silent
from secure_fedmeta.randomness import Founding, Randomness, Streams
from secure_fedmeta.remains import Remains, facts_of
from secure_fedmeta.reporting import write_reports
from secure_fedmeta.results import CONFIG, METRICS, MODEL, REPORT, draw_curves, write_json
from secure_fedmeta.resumption import Found, Start
from secure_fedmeta.run_log import now, pin, reopened_log, started_log
from secure_fedmeta.tasks import Site
from secure_fedmeta.told import Told
from secure_fedmeta.workspace import Workspace, log_origin, name_run


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
        AuditError, RunDirectoryError, StateError: something cannot be made durable; the run stops
            where it is, and can be resumed.
    """
    progress, site = progress or Silent(), site or Site()
    Workspace.check(out)
    progress.stage("reading data and sizing the noise")
    parts = assemble(config, module=module, loss=loss, site=site)
    for instrument in instruments:
        instrument.check(parts.source.info)
    randomness = _randomness(config)
    # The run's name is no secret: a seed must not give it twice, the ledger charges a name once.
    run_id = name_run(config.name, moment=now(), suffix=os.urandom(3).hex())
    signer = _signer(run_id)
    name, secret = os.urandom(32), os.urandom(state.SECRET_BYTES)
    charges = client_charges(config, parts, name)
    parties = found_parties(
        parts,
        name,
        randomness,
        log_key=signer.vkey,
        charges=charges,
        founding=_founding(randomness, Founding(secret)),
    )
    budget = open_budget(config, parts.plan, run_id=run_id, public=parts.source.info.public)
    workspace = Workspace.create(out, run_id)
    durable.write_new(workspace.path / CONFIG, config.to_toml().encode(), mode=0o644)
    facts = facts_of(parts, secret, folder=str(site.folder.resolve()))
    with ExitStack() as stack:
        kept = stack.enter_context(Kept.create(run_id, secret, facts))
        log = stack.enter_context(started_log(workspace, signer, parties, budget, randomness))
        metrics = Metrics.create(workspace.path / METRICS)
        kept.ready()
        checkpoints = Checkpoints(workspace.path, kept.seal_key)
        files = Files(workspace, log, metrics, checkpoints, kept)
        start = Start.fresh(parts, budget, parties=len(parties.endpoints))
        training = Training(parts, parties, budget, files, start, randomness, progress, charges)
        return _finish(training, files, parts, signer, progress, instruments)


def resume(
    directory: Path,
    *,
    progress: Progress | None = None,
    module: nn.Module | None = None,
    loss: str | Loss | None = None,
    site: Site | None = None,
    instruments: Sequence[Instrument] = (),
    tell: Callable[[Found], None] = lambda found: None,
) -> RunResult:
    """Go on with a run that was cut off, from the last round that its log says has ended.

    What the log acknowledged stands, with its model. A round that was cut off is done again, with
    fresh coins and noise; what it was charged stays charged.

    Args:
        directory: of the run, or a link to it.
        progress: told about stages and rounds; None is silent.
        module: the caller's own network, if the run began with one.
        loss: the caller's own loss, if the run began with one.
        site: where the source is read; None: where the run read it, with this user's block secret.
        instruments: watch the rounds that are left.
        tell: told what was found, before the run goes on.

    Raises:
        RunEnded: there is nothing to resume.
        NothingBegun: it was cut off before its first round; start it again.
        RunDirectoryError: the directory is in use, older than the pin, damaged, or of other
            settings or data.
        StateError: what the state directory kept of the run is missing or is not its own.
        ConfigError, DataError, LedgerError, AuditError: as for `run`.
    """
    progress = progress or Silent()
    progress.stage("checking what the run left")
    workspace = Workspace.of(directory)
    Kept.check_begun(workspace.run_id)
    signer = _signer(workspace.run_id)
    with ExitStack() as stack:
        log = stack.enter_context(reopened_log(workspace, signer))
        entries = workspace.audit / "log.jsonl"
        if Told.by(entries, size=log.size).exported:
            pin(workspace, signer, log)
            _forget(workspace)
            raise RunEnded(f"{directory} has ended: nothing is left to resume, see fedmeta report")
        kept = stack.enter_context(Kept.open(workspace.run_id))
        checkpoints = Checkpoints(workspace.path, kept.seal_key)
        remains = Remains(log, entries, kept, checkpoints)
        config = load_config(workspace.path / CONFIG)
        remains.check_config(config)
        site = site or Site(Path(kept.facts.folder))
        parts = assemble(config, module=module, loss=loss, site=site)
        remains.check_parts(facts_of(parts, kept.secret, folder=kept.facts.folder), parts.plan)
        for instrument in instruments:
            instrument.check(parts.source.info)
        randomness = _randomness(config)
        charges = client_charges(config, parts, remains.run)
        parties = found_parties(
            parts,
            remains.run,
            randomness,
            log_key=signer.vkey,
            charges=charges,
            founding=_founding(randomness, kept.founding),
            contributions=remains.contributions(parts.plan, private=randomness.private),
        )
        remains.check_setting(parties.setting)
        budget = reopened_budget(
            config,
            parts.plan,
            population=remains.population,
            prior=tuple(remains.told.prior.elements()),
        )
        checkpoint = remains.standing(parts)
        remains.settle(budget.ledger, budget.population)
        remains.log_grants(budget)
        start = remains.start(parts, checkpoint, parties=len(parties.endpoints))
        metrics = Metrics.take_up(workspace.path / METRICS, start.metrics)
        remains.log_resumption(start)
        pin(workspace, signer, log)
        tell(remains.found(workspace.run_id, start, budget, parts))
        for instrument in instruments:
            instrument.resumed(metrics.records)
        files = Files(workspace, log, metrics, checkpoints, kept)
        training = Training(parts, parties, budget, files, start, randomness, progress, charges)
        return _finish(training, files, parts, signer, progress, instruments)


def _finish(
    training: Training,
    files: Files,
    parts: Parts,
    signer: LogSigner,
    progress: Progress,
    instruments: Sequence[Instrument],
) -> RunResult:
    """The rounds that are left, and the report."""
    workspace, log = files.workspace, files.log
    with durable.naming(workspace.path), ExitStack() as stack:
        for instrument in instruments:
            stack.enter_context(instrument.watching(workspace.path))
        progress.started(training.facts())
        for record in training.rounds():
            pin(workspace, signer, log)
            progress.round_done(record)
            for instrument in instruments:
                instrument.round_done(record)
        found = training.report(signer.vkey)
        for instrument in instruments:
            instrument.finished(found)
        (workspace.path / MODEL).write_bytes(parts.learner.spec.save(training.model))
        progress.stage("writing the report")
        write_json(workspace.path / REPORT, found)
        draw_curves(workspace.plots, training.records, found)
        written = write_reports(workspace.path, found, training.records)
        names = (CONFIG, METRICS, MODEL, REPORT, *written)
        digests = {name: _digest(workspace.path / name) for name in names}
        durable.sync_directory(workspace.path)
        log.append("report-exported", {"files": digests})
        pin(workspace, signer, log)
    _forget(workspace)
    progress.ended(training.status)
    ended = (training.status, found, training.model, training.charged, training.records)
    return RunResult(workspace.path, *ended)


def _randomness(config: Config) -> Randomness:
    seed = config.not_private
    return Randomness(None if seed is None else seed.seed)


def _founding(randomness: Randomness, kept: Founding) -> Streams:
    """Where identities come from: a seed replaces every secret, the kept one too."""
    return kept if randomness.private else randomness


def _signer(run_id: str) -> LogSigner:
    return LogSigner.generate(log_origin(run_id), state.signing_seed(os.urandom))


def _forget(workspace: Workspace) -> None:
    """Remove what is needed to resume alone; the run has ended, and its report is logged."""
    Kept.forget(workspace.run_id)
    Checkpoints.forget(workspace.path)
    workspace.point_latest()


def _digest(path: Path) -> str:
    """SHA-256 of a file that is durable on return."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return hashlib.sha256(path.read_bytes()).hexdigest()
