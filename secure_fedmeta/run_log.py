"""The log of a run from its first entries on, and when the run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from audit.errors import LogCorrupt, LogLocked
from audit.log import AuditLog
from audit.note import LogSigner
from audit.pin import PinStore
from secure_fedmeta import __version__, state
from secure_fedmeta.budget import Budget
from secure_fedmeta.errors import RunDirectoryError, StateError
from secure_fedmeta.pipeline import Parties
from secure_fedmeta.provenance import code_digest, environment_digest
from secure_fedmeta.randomness import Randomness
from secure_fedmeta.setting import Setting
from secure_fedmeta.unprotected import UNPROTECTED
from secure_fedmeta.workspace import Workspace


def genesis(setting: Setting, origin: str, *, private: bool) -> dict[str, Any]:
    """The body of a log's first entry: what runs, under which plan, and what it leaves open.

    Args:
        setting: the run.
        origin: the name that the log signs.
        private: whether the run's secrets are secret.
    """
    return {
        "run": setting.run.hex(),
        "origin": origin,
        "config_digest": setting.config_digest.hex(),
        "plan_digest": setting.plan.digest().hex(),
        "plan": setting.plan.to_json(),
        "roster_digest": setting.roster.digest.hex(),
        "not_private": not private,
        "unprotected": list(UNPROTECTED),
        **product(),
    }


def product() -> dict[str, str]:
    """Which code runs, as genesis and resumption say it."""
    return {
        "code_digest": code_digest().hex(),
        "lock_digest": environment_digest().hex(),
        "product_version": __version__,
    }


def pin(workspace: Workspace, signer: LogSigner, log: AuditLog) -> None:
    """Remember the log's head in the state directory."""
    PinStore(state.state_directory()).save(workspace.run_id, signer.vkey, log.head)


@contextmanager
def started_log(
    workspace: Workspace,
    signer: LogSigner,
    parties: Parties,
    budget: Budget,
    randomness: Randomness,
) -> Iterator[AuditLog]:
    """A log with its first entries; pinned at once."""
    setting = parties.setting
    with _recovering(workspace, signer, lambda: _created(workspace, signer)) as log:
        log.append("genesis", genesis(setting, signer.origin, private=randomness.private))
        for kind, body in budget.entries():
            log.append(kind, body)
        pin(workspace, signer, log)
        yield log


def reopened_log(workspace: Workspace, signer: LogSigner) -> AbstractContextManager[AuditLog]:
    """The log of a run that is resumed: locked, and checked against its pin.

    Raises:
        RunDirectoryError: another process runs it; the directory is older than the pin, or was
            changed.
        StateError: there is no pin, or the key that signs the log is gone.
    """
    return _recovering(workspace, signer, lambda: _reopened(workspace, signer))


def _created(workspace: Workspace, signer: LogSigner) -> AuditLog:
    return AuditLog.create(workspace.audit, signer, clock=now)


def _reopened(workspace: Workspace, signer: LogSigner) -> AuditLog:
    pinned = PinStore(state.state_directory()).load(workspace.run_id)
    if pinned is None:
        raise StateError(
            f"there is no pin of run {workspace.run_id} in the state directory, so that nobody can "
            "tell whether its log is whole; a run directory must keep its name"
        )
    if pinned.vkey != signer.vkey:
        raise StateError(
            "the key in the state directory is not the one that signs this run's log: put back "
            "log-signing.key, as it was when the run began"
        )
    try:
        return AuditLog.open(workspace.audit, signer, clock=now, pinned=pinned.checkpoint)
    except LogLocked as error:
        raise RunDirectoryError(
            f"{workspace.path} is in use: another process runs it. Wait for it, or stop it"
        ) from error
    except LogCorrupt as error:
        raise RunDirectoryError(
            f"the log of {workspace.path} cannot be gone on with ({error}): it was put back from "
            "an older copy, or changed. Restore the newest one, or start a new run"
        ) from error


@contextmanager
def _recovering(
    workspace: Workspace, signer: LogSigner, make: Callable[[], AuditLog]
) -> Iterator[AuditLog]:
    """A log that an interruption inside an append leaves signed and pinned up to its end."""
    try:
        with make() as log:
            yield log
    except KeyboardInterrupt:
        if (workspace.audit / "checkpoint").exists():
            with AuditLog.open(workspace.audit, signer, clock=now) as log:
                pin(workspace, signer, log)
        raise


def now() -> datetime:
    """The time of a log entry."""
    return datetime.now(UTC)
