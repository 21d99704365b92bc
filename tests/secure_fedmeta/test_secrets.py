"""No secret of any party shows: not in logs, reports, reprs or anywhere in the run directory."""

from __future__ import annotations

import base64
import logging
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import secure_fedmeta.training
from privacy.rng import SecureRandom
from secure_fedmeta.errors import StateError
from secure_fedmeta.pipeline import Parties
from secure_fedmeta.randomness import Founding, Randomness
from secure_fedmeta.training import RunResult, run
from tests.secure_fedmeta.federation import CLIENTS, tiny


class Remembering(Randomness):
    """Keeps every secret that any party drew, by label."""

    drawn: dict[str, list[bytes]]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        type(self).drawn = {}

    def stream(self, label: str) -> Callable[[int], bytes]:
        return remembering(label, super().stream(label))


def remembering(label: str, inner: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def draw(count: int) -> bytes:
        value = inner(count)
        Remembering.drawn.setdefault(label, []).append(value)
        return value

    return draw


@pytest.fixture
def result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> RunResult:
    monkeypatch.setattr(secure_fedmeta.training, "Randomness", Remembering)
    key_generator, founding = SecureRandom.__init__, Founding.stream

    def remember_secret(self: Founding, label: str) -> Callable[[int], bytes]:
        Remembering.drawn.setdefault("kept", []).append(self.reveal())
        return remembering(label, founding(self, label))

    monkeypatch.setattr(Founding, "stream", remember_secret)

    def remember_key(self: SecureRandom, key: bytes, *, reproducible: bool) -> None:
        Remembering.drawn.setdefault("noise", []).append(key)
        key_generator(self, key, reproducible=reproducible)

    monkeypatch.setattr(SecureRandom, "__init__", remember_key)
    with caplog.at_level(logging.DEBUG):
        return run(
            tiny({"transport.duplicate": 0.3, "training.rounds": 2}),  # repeats are refused
            out=tmp_path / "runs",
        )


def spellings(secret: bytes) -> list[bytes]:
    """How a secret would look if it leaked: raw, hexadecimal, base64."""
    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"=")]


def test_no_secret_is_written_to_the_run_directory_or_logged(
    result: RunResult, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = Remembering.drawn
    assert {"aggregator", "client/client-000", "kept", "noise", "salts"} <= drawn.keys()
    assert len(drawn["noise"]) > CLIENTS
    secrets = [s for values in drawn.values() for s in values]
    secrets.append((state_dir / "log-signing.key").read_bytes())
    assert len(secrets) > 50
    assert all(len(secret) >= 12 for secret in secrets)
    files = [path for path in result.directory.rglob("*") if path.is_file()]
    everything = [path.read_bytes() for path in files] + [caplog.text.encode()]
    for content in everything:
        for secret in secrets:
            assert not any(spelling in content for spelling in spellings(secret))


def test_the_test_above_would_see_a_leak(result: RunResult, state_dir: Path) -> None:
    """The salts are where they belong, in one of the spellings looked for."""
    (opening,) = (state_dir / "openings").iterdir()
    for salt in Remembering.drawn["salts"]:
        assert any(spelling in opening.read_bytes() for spelling in spellings(salt))


def test_state_is_for_its_owner_alone(result: RunResult, state_dir: Path) -> None:
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    names = {path.name for path in state_dir.iterdir()}
    assert {"log-signing.key", "ledger.sqlite", "openings", "pins"} <= names
    assert stat.S_IMODE((state_dir / "log-signing.key").stat().st_mode) == 0o600
    (opening,) = (state_dir / "openings").iterdir()
    assert opening.name == f"{result.directory.name}.jsonl"
    assert stat.S_IMODE(opening.stat().st_mode) == 0o600
    assert len(opening.read_text().splitlines()) == result.report["privacy"]["events"]


def test_a_key_that_others_can_read_stops_the_run(tmp_path: Path, state_dir: Path) -> None:
    run(tiny({"training.rounds": 1}), out=tmp_path / "runs")
    (state_dir / "log-signing.key").chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        run(tiny({"training.rounds": 1}), out=tmp_path / "runs")


def test_reprs_redact(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held: list[Parties] = []
    found = secure_fedmeta.training.found_parties

    def keep(*args: object, **named: object) -> Parties:
        held.append(found(*args, **named))  # type: ignore[arg-type]
        return held[-1]

    monkeypatch.setattr(secure_fedmeta.training, "Randomness", Remembering)
    monkeypatch.setattr(secure_fedmeta.training, "found_parties", keep)
    run(tiny({"training.rounds": 1}), out=tmp_path)
    (parties,) = held
    shown = [repr(parties), repr(parties.aggregator)]
    for client in parties.clients.values():
        shown += [repr(client), repr(client._attempt), repr(client._noise), repr(client._identity)]
    secrets = [s for values in Remembering.drawn.values() for s in values]
    for text in shown:
        for secret in secrets:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
