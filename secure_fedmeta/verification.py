"""Checking a run's log against what this user remembers of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.canonical import loads
from audit.errors import AuditError, VerificationFailed
from audit.pin import PinStore
from audit.spend import SpendChecker
from audit.verify import Verified, verify_log
from secure_fedmeta import state
from secure_fedmeta.errors import RunDirectoryError


@dataclass(frozen=True)
class Outcome:
    """The result of a verification.

    Attributes:
        accepted: whether every check passed and somebody vouched for the key.
        failure: what failed, or None.
        entry: index of the first bad entry, where one is to blame.
        verified: what holds, where the log itself is sound.
    """

    accepted: bool
    failure: str | None
    entry: int | None
    verified: Verified | None

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain JSON."""
        return {
            "accepted": self.accepted,
            "failure": self.failure,
            "entry": self.entry,
            "verified": None if self.verified is None else self.verified.to_json(),
        }

    def lines(self) -> Iterator[str]:
        """The outcome in sentences."""
        found = self.verified
        if found is not None:
            yield f"log:     {found.origin}, {found.size} entries, root {found.root.hex()}"
            yield f"rounds:  {found.released} released, {found.aborted} aborted"
            for sentence in found.standing():
                yield f"         {sentence}"
            yield f"trust:   {found.trust}"
            if found.not_private:
                yield "warning: the run declares itself NOT PRIVATE (fixed seed)"
            for limit in found.not_checked:
                yield f"note:    {limit}"
        yield "verified" if self.accepted else f"FAILED:  {self.failure}"


def verify_run(directory: Path, *, key: str | None, pinned: Path | None, unpinned: bool) -> Outcome:
    """Verify the log of a run directory.

    The key comes from `key`, else from the pin that the run left in the state directory. With
    neither, the log may be consistent and still be anybody's: that is accepted only if `unpinned`,
    which never sets aside a pin that exists. Files whose digests the log records, such as the
    report and the model, must be as they were exported.

    Raises:
        RunDirectoryError: there is no log to verify, or the pinned checkpoint cannot be read.
    """
    audit = directory / "audit"
    if not (audit / "log.jsonl").is_file():
        raise RunDirectoryError(f"{audit / 'log.jsonl'} does not exist: name a run directory")
    try:
        head = None if pinned is None else pinned.read_bytes()
    except OSError as error:
        raise RunDirectoryError(f"{pinned} cannot be read: {error.strerror}") from error
    try:
        pin = PinStore(state.state_directory()).load(directory.resolve().name)
        if pin is not None and key in (None, pin.vkey):
            key, head = pin.vkey, pin.checkpoint if head is None else head
        found = verify_log(audit, vkey=key, pinned=head, spend=SpendChecker())
        _check_files(directory)
    except VerificationFailed as error:
        return Outcome(False, str(error), error.index, None)
    except AuditError as error:
        return Outcome(False, str(error), None, None)
    if found.trust == "none" and not unpinned:
        reason = "no key: nobody vouches for this log; give --key, or accept it with --unpinned"
        return Outcome(False, reason, None, found)
    return Outcome(True, None, None, found)


def exported(directory: Path) -> frozenset[str]:
    """The files whose digests a log that has been verified holds, such as report.json."""
    return frozenset(name for _, name, _ in _digests(directory))


def _check_files(directory: Path) -> None:
    """Compare the exported files with the digests in a log that has been verified."""
    for index, name, digest in _digests(directory):
        path = directory / name
        if Path(name).name != name or name == "..":
            raise VerificationFailed(index, f"{name!r} is no name of a file of the run")
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise VerificationFailed(index, f"{name} is missing or not as it was exported")


def _digests(directory: Path) -> Iterator[tuple[int, str, str]]:
    """Index of the entry, name and digest of every exported file."""
    lines = (directory / "audit" / "log.jsonl").read_bytes().splitlines()
    for index, line in enumerate(lines):
        entry = loads(line)
        if entry["kind"] == "report-exported":
            for name, digest in entry["body"]["files"].items():
                yield index, name, digest
