"""A run that is cut off inside an append: the log that stays verifies, and says what happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.store import Store
from privacy.ledger import Ledger
from secure_fedmeta import state
from secure_fedmeta.training import run
from secure_fedmeta.verification import verify_run
from tests.secure_fedmeta.federation import entries, tiny

KINDS = ["genesis", "budget-granted", "round-intent", "round-release"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("written", [0.0, 0.5, 1.0], ids=["unwritten", "torn", "unsigned"])
def test_ctrl_c_between_an_entry_and_its_signed_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, written: float
) -> None:
    append = Store.append
    cut_off: list[bytes] = []

    def cut(self: Store, name: str, at: int, data: bytes) -> None:
        if name == "log.jsonl" and f'"kind":"{kind}"'.encode() in data and not cut_off:
            cut_off.append(data)
            if written:
                append(self, name, at, data[: int(len(data) * written)])
            raise KeyboardInterrupt
        append(self, name, at, data)

    monkeypatch.setattr(Store, "append", cut)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(), out=tmp_path)
    (directory,) = tmp_path.glob("*-tiny-*")
    found = [entry["kind"] for entry in entries(directory / "audit")]
    kept = KINDS[: KINDS.index(kind) + (written == 1.0)]
    recovered = ["recovered"] * (written > 0 and bool(kept))
    assert found == kept + recovered
    outcome = verify_run(directory, key=None, pinned=None, unpinned=False)
    assert outcome.accepted, outcome.failure
    charged = Ledger(state.ledger_url()).events(f"run/{directory.name}")
    assert len(charged) == (kind in KINDS[2:])


def test_a_run_that_ends_otherwise_is_not_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk stays visible: what was not acknowledged is left as it is."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "append", full)
    with pytest.raises(Exception, match="No space left"):
        run(tiny(), out=tmp_path)
    (directory,) = tmp_path.glob("*-tiny-*")
    assert (directory / "audit" / "log.jsonl").read_bytes() == b""
