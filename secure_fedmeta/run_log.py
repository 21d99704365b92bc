"""The log of a run from its first entries on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from audit.log import AuditLog
from audit.note import LogSigner
from audit.pin import PinStore
from secure_fedmeta import __version__, state
from secure_fedmeta.budget import Budget
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
        "code_digest": code_digest().hex(),
        "lock_digest": environment_digest().hex(),
        "not_private": not private,
        "product_version": __version__,
        "unprotected": list(UNPROTECTED),
    }


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
    with _recovering_log(workspace, signer) as log:
        log.append("genesis", genesis(setting, signer.origin, private=randomness.private))
        for kind, body in budget.entries():
            log.append(kind, body)
        PinStore(state.state_directory()).save(workspace.run_id, signer.vkey, log.head)
        yield log


@contextmanager
def _recovering_log(workspace: Workspace, signer: LogSigner) -> Iterator[AuditLog]:
    """A new log that an interruption inside an append leaves signed and pinned up to its end."""
    try:
        with AuditLog.create(workspace.audit, signer, clock=now) as log:
            yield log
    except KeyboardInterrupt:
        if (workspace.audit / "checkpoint").exists():
            with AuditLog.open(workspace.audit, signer, clock=now) as log:
                PinStore(state.state_directory()).save(workspace.run_id, signer.vkey, log.head)
        raise


def now() -> datetime:
    """The time of a log entry."""
    return datetime.now(UTC)
