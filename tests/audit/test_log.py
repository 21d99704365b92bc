from __future__ import annotations

from pathlib import Path

from audit.log import AuditLog
from audit.pin import PinStore
from audit.verify import verify_log
from tests.audit import scenario


def test_a_log_verifies_with_key_and_pin_and_goes_on_after_reopening(tmp_path: Path) -> None:
    log = scenario.write_log(tmp_path / "audit")
    pins = PinStore(tmp_path / "state")
    pins.save("run", scenario.signer().vkey, log.head)
    log.close()
    pin = pins.load("run")
    assert pin is not None
    with AuditLog.open(tmp_path / "audit", scenario.signer(), clock=scenario.clock) as again:
        assert again.head == pin.checkpoint
        again.append("report-exported", {"files": {}})
    verified = verify_log(tmp_path / "audit", vkey=pin.vkey, pinned=pin.checkpoint, spend=None)
    assert (verified.trust, verified.size, verified.pinned_size) == ("pinned", 13, 12)
    assert (verified.released, verified.aborted, verified.open_round) == (3, 2, None)
    given = verify_log(tmp_path / "audit", vkey=pin.vkey, pinned=None, spend=None)
    none = verify_log(tmp_path / "audit", vkey=None, pinned=None, spend=None)
    assert (given.trust, none.trust) == ("given", "none")
    assert given.root == none.root == verified.root
