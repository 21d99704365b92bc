from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import PinRefused
from audit.merkle import consistency_proof, leaf_hash, root_of
from audit.note import Checkpoint, LogSigner
from audit.pin import Pin, PinStore
from tests.audit import scenario

SIGNER = scenario.signer()
LEAVES = [leaf_hash(bytes([number])) for number in range(20)]


def head(size: int, leaves: list[bytes] = LEAVES, signer: LogSigner = SIGNER) -> bytes:
    return signer.sign(Checkpoint(signer.origin, size, root_of(leaves[:size])))


def test_a_pin_is_remembered(tmp_path: Path) -> None:
    pins = PinStore(tmp_path / "state")
    assert pins.load("log") is None
    saved = pins.save("log", SIGNER.vkey, head(3))
    assert pins.load("log") == saved == PinStore(tmp_path / "state").load("log")
    assert saved.statement == Checkpoint(SIGNER.origin, 3, root_of(LEAVES[:3]))
    pins.save("log", SIGNER.vkey, head(3))
    pins.save("../other", SIGNER.vkey, head(1))
    assert pins.load("log") == saved
    assert {path.parent.name for path in tmp_path.rglob("*.json")} == {"pins"}


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8))
def test_a_pin_never_goes_backwards(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    pins = PinStore(tmp_path_factory.mktemp("state"))
    latest = 0
    for size in sizes:
        if size < latest:
            with pytest.raises(PinRefused, match="set back"):
                pins.save("log", SIGNER.vkey, head(size))
        else:
            proof = consistency_proof(LEAVES[:size], latest)
            pins.save("log", SIGNER.vkey, head(size), consistency=proof if latest else None)
            latest = size
        pin = pins.load("log")
        assert pin is not None
        assert pin.statement.size == latest


def test_another_key_root_or_history_is_refused(tmp_path: Path) -> None:
    pins = PinStore(tmp_path)
    pins.save("log", SIGNER.vkey, head(3))
    other = scenario.signer(2)
    forged = [leaf_hash(b"forged"), *LEAVES[1:]]
    with pytest.raises(PinRefused, match="another key"):
        pins.save("log", other.vkey, head(5, signer=other))
    with pytest.raises(PinRefused, match="no valid head"):
        pins.save("log", SIGNER.vkey, head(5, signer=other))
    with pytest.raises(PinRefused, match="forked"):
        pins.save("log", SIGNER.vkey, head(3, forged))
    proof = consistency_proof(forged[:5], 3)
    with pytest.raises(PinRefused, match="does not extend"):
        pins.save("log", SIGNER.vkey, head(5, forged), consistency=proof)
    pin = pins.load("log")
    assert pin is not None
    assert pin.checkpoint == head(3)


def test_a_damaged_pin_is_refused_and_never_replaced(tmp_path: Path) -> None:
    pins = PinStore(tmp_path)
    pins.save("log", SIGNER.vkey, head(3))
    (path,) = tmp_path.rglob("*.json")
    good = path.read_bytes()
    for content in (
        b"",
        b"{}",
        b"[]",
        b'{"checkpoint":1,"log_id":"log","vkey":"x"}',
        good.replace(b"\\n3\\n", b"\\n2\\n"),
        good.replace(b'"log"', b'"dog"'),
    ):
        path.write_bytes(content)
        with pytest.raises(PinRefused):
            pins.load("log")
        with pytest.raises(PinRefused):
            pins.save("log", SIGNER.vkey, head(4))
        assert path.read_bytes() == content


def test_a_left_over_temporary_file_is_no_obstacle(tmp_path: Path) -> None:
    pins = PinStore(tmp_path)
    pins.save("log", SIGNER.vkey, head(3))
    (path,) = tmp_path.rglob("*.json")
    path.with_name(path.name + ".tmp").write_bytes(b"torn")
    pins.save("log", SIGNER.vkey, head(4))
    assert pins.load("log") == Pin("log", SIGNER.vkey, head(4))
    assert path.stat().st_mode & 0o777 == 0o600
