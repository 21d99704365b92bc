"""Agent files: what was saved goes on bit by bit, and nothing else is opened."""

from __future__ import annotations

import json
import os
import re
import stat
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from crypto.codec import Reader, Writer
from crypto.errors import LockRefused
from crypto.locked_file import MIN_COST, FileKey, Passphrase
from secure_fedmeta.agent import PersonalAgent
from secure_fedmeta.agent import agent as agent_module
from secure_fedmeta.agent import file as agent_file
from secure_fedmeta.agent.choice import Held
from secure_fedmeta.agent.file import MAX_TEXT, decode, encode
from secure_fedmeta.agent.keys import key_in, passphrase_in
from secure_fedmeta.agent.rows import Rows
from secure_fedmeta.errors import AgentError, ConfigError, DataError, FedmetaError
from tests.secure_fedmeta.agents import KEY, KINDS, agent_of, examples, key_file

WORDS = "several words that nobody guesses"


def taught(kind: str = "number", mode: Any = "mixture", count: int = 25) -> PersonalAgent:
    agent = agent_of(kind, hidden=(4,), name="mlp")
    agent.observe(*examples(kind, count))
    agent.learn(mode)
    agent.observe(*examples(kind, 3, seed=1))
    return agent


CONTENT = encode(taught().contents())


def parts(content: bytes = CONTENT) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    reader = Reader(content[5:])
    return json.loads(reader.sized()), load_tensors(bytes(reader.rest()))


def joined(text: object, tensors: dict[str, torch.Tensor]) -> bytes:
    return joined_bytes(rfc8785.dumps(text), save_tensors(tensors))  # type: ignore[arg-type]


def joined_bytes(text: bytes, tensors: bytes) -> bytes:
    return Writer().fixed(b"FMPA", 4).u8(1).sized(text).done() + tensors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["auto", "global", "adapted", "local", "mixture", None])
def test_what_was_saved_goes_on_bit_by_bit(kind: str, mode: Any, tmp_path: Path) -> None:
    agent = agent_of(kind)
    agent.observe(*examples(kind, 25))
    if mode is not None:
        agent.learn(mode)
        agent.observe(*examples(kind, 3, seed=1))
    agent.save(tmp_path / "a.agent", KEY)
    again = PersonalAgent.load(tmp_path / "a.agent", KEY)
    assert encode(again.contents()) == encode(agent.contents())
    assert again.explain() == agent.explain()
    new, y = examples(kind, 6, seed=2)
    for one in (agent, again):
        one.observe(new, y)
    assert encode(again.contents()) == encode(agent.contents())
    found, expected = again.act(new), agent.act(new)
    assert torch.equal(found.outputs, expected.outputs)
    for part in ("probabilities", "interval"):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))
    agent.reset()
    assert encode(agent.contents()) == encode(agent_of(kind).contents())


def test_a_plain_file_says_that_it_is_plain_by_itself(tmp_path: Path) -> None:
    agent, path = taught(), tmp_path / "a.agent"
    agent.save_plain(path)
    assert path.read_bytes() == CONTENT
    assert encode(PersonalAgent.load_plain(path).contents()) == CONTENT
    agent.save(path, KEY)
    with pytest.raises(AgentError, match="is locked: give its passphrase or key file"):
        PersonalAgent.load_plain(path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(AgentError, match="is no agent file"):
        PersonalAgent.load(path, KEY)


def test_a_locked_file_shows_nothing_and_opens_by_its_key_alone(tmp_path: Path) -> None:
    agent, path = taught(), tmp_path / "a.agent"
    agent.save(path, Passphrase(WORDS), cost=MIN_COST)
    held = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["a.agent"]
    for secret in (agent.x.tobytes()[:16], agent.y.tobytes()[:16], WORDS.encode(), b"FMPA"):
        assert secret not in held
    assert encode(PersonalAgent.load(path, Passphrase(WORDS)).contents()) == CONTENT
    for wrong in (Passphrase(WORDS + "x"), KEY):
        with pytest.raises(LockRefused):
            PersonalAgent.load(path, wrong)
    agent.save(path, KEY)
    with pytest.raises(LockRefused, match="wrong key file"):
        PersonalAgent.load(path, FileKey(bytes(32)))


@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_of_a_locked_file_is_refused(
    at: float, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("agent") / "a.agent"
    taught_once().save(path, KEY)
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= flip
    path.write_bytes(data)
    with pytest.raises((LockRefused, AgentError)):
        PersonalAgent.load(path, KEY)


_ONCE: list[PersonalAgent] = []


def taught_once() -> PersonalAgent:
    if not _ONCE:
        _ONCE.append(taught())
    return _ONCE[0]


@given(size=st.integers(0, len(CONTENT) - 1), more=st.binary(min_size=1, max_size=20))
def test_a_content_that_is_cut_off_or_longer_is_refused(size: int, more: bytes) -> None:
    for data in (CONTENT[:size], CONTENT + more):
        with pytest.raises(AgentError):
            decode(data)


@given(at=st.integers(0, len(CONTENT) - 1), flip=st.integers(1, 255))
def test_a_changed_content_is_refused_or_is_another_agent_s(at: int, flip: int) -> None:
    """Nothing but this package's errors, whatever a plain file holds."""
    data = bytearray(CONTENT)
    data[at] ^= flip
    try:
        found = PersonalAgent.of(decode(bytes(data)))
    except FedmetaError:
        return
    assert encode(found.contents()) == bytes(data)


def change(path: str, value: object) -> bytes:
    text, tensors = parts()
    table, names = text, path.split(".")
    for name in names[:-1]:
        table = table[name]
    if value is None:
        del table[names[-1]]
    else:
        table[names[-1]] = value
    return joined(text, tensors)


def swap(name: str, value: torch.Tensor | None) -> bytes:
    text, tensors = parts()
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    return joined(text, tensors)


TEXT, TENSORS = parts()
BAD = {
    "no magic": (b"FMPB" + CONTENT[4:], "no agent file"),
    "newer": (CONTENT[:4] + b"\x02" + CONTENT[5:], "version 2, this product reads 1: upgrade it"),
    "empty": (b"FMPA", "cut off"),
    "no JSON": (joined_bytes(b"{", save_tensors(TENSORS)), "no JSON"),
    "deep JSON": (joined_bytes(b"[" * 100_000, b""), "no JSON"),
    "NaN": (joined_bytes(b'{"a":NaN}', b""), "no JSON"),
    "blanks": (joined_bytes(json.dumps(TEXT).encode(), b""), "not canonical"),
    "key twice": (joined_bytes(b'{"a":1,"a":1}', b""), "not canonical"),
    "unknown key": (change("more", 1), "more: Extra inputs"),
    "missing key": (change("capacity", None), "capacity: Field required"),
    "huge capacity": (change("capacity", 2**40), "capacity: Input should be less"),
    "huge model": (change("spec.model.hidden", [2**20, 2**20]), "a network of"),
    "too many layers": (change("spec.model.hidden", [1] * 65), "spec.model.hidden"),
    "model of another size": (change("spec.model.hidden", [5]), "constants|must be"),
    "no steps": (change("spec.rule.steps", 0), "spec.rule.steps"),
    "steps without end": (change("spec.rule.local_steps", 10**9), "spec.rule.local_steps"),
    "features missing": (change("spec.features", ["a"]), "1 features for 3 inputs"),
    "bounds turned": (change("spec.low", 9.0), "must be below high"),
    "two outputs": (change("spec.model.outputs", 2), "2 outputs for one number"),
    "other constants": (change("constants", "00" * 32), "version of torch that made it"),
    "long note": (change("learned.note", "x" * 2001), "learned.note"),
    "an escape in a note": (change("learned.note", "\x1b[2J"), "learned.note"),
    "an escape in a name": (change("spec.features", ["a", "b", "\x9b"]), "spec.features"),
    "cold": (change("learned.temperature", 0.0), "learned.temperature"),
    "more seen": (change("seen", 3), "more than the agent remembers"),
    "weight of nothing": (change("learned.weights", {"mixture": 1}), "weights of mixture"),
    "weights of one": (change("learned.way", "global"), "for the way global"),
    "weights beyond 1": (change("learned.weights", {"global": 0.5, "local": 0.75}), "weights of"),
    "other examples": (change("learned.examples", 24), "25 residuals for 24 examples"),
    "damaged tensors": (joined_bytes(rfc8785.dumps(TEXT), b"\x08"), "damaged behind its text"),
    "a tensor more": (swap("more", torch.zeros(1)), "'more', which it has no use for"),
    "no model": (swap("model", None), "no 'model'"),
    "no examples": (swap("y", None), "no 'y'"),
    "a scalar": (swap("y", torch.zeros(())), "no 'y'"),
    "longer model": (swap("model", torch.zeros(99)), r"must be torch.float32 \[21\]"),
    "other dtype": (swap("model", torch.zeros(21, dtype=torch.float64)), "torch.float64"),
    "NaN model": (swap("model", torch.full((21,), torch.nan)), "not finite"),
    "NaN example": (swap("x", torch.full((28, 3), torch.nan)), "not finite"),
    "input out of range": (swap("x", torch.full((28, 3), 6.0)), "between -5 and 5"),
    "fewer inputs": (swap("x", torch.zeros(28, 2)), r"must be torch.float32 \[28, 3\]"),
    "long test": (swap("drift", torch.zeros(501, dtype=torch.float64)), "501 losses"),
    "three scores": (swap("scores", torch.zeros(3, dtype=torch.float64)), "3 scores"),
    "other folds": (swap("folds", torch.zeros(25, dtype=torch.int64)), "folds are not those"),
    "no folds": (swap("folds", None), "no 'folds'"),
    "a fold model less": (swap("fold/local", torch.zeros(9, 21)), "fold/local"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_content_that_breaks_the_format_is_refused(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(AgentError, match=reason):
        PersonalAgent.of(decode(data))


def test_a_name_is_never_an_import_string() -> None:
    for path, name in (("spec.model.name", "os:system"), ("spec.rule.algorithm", "os:system")):
        with pytest.raises(ConfigError, match="no such"):
            decode(change(path, name))


def test_sizes_are_bounded_before_they_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = b"FMPA\x01" + (2**32 - 1).to_bytes(4, "little")
    with pytest.raises(AgentError, match="cut off"):
        decode(long)
    with pytest.raises(AgentError, match=f"more than {MAX_TEXT:,} bytes"):
        decode(joined_bytes(b" " * (MAX_TEXT + 1), b""))
    path = tmp_path / "a.agent"
    path.write_bytes(CONTENT)
    monkeypatch.setattr(agent_file, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="larger than 100 bytes"):
        agent_file.read(path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="no regular file"):
        agent_file.read(tmp_path / "pipe")


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, agent = tmp_path / "a.agent", taught_once()
    agent.save_plain(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AgentError, match="cannot be written \\(No space left on device\\)"):
        agent_of("binary").save(path, KEY)
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["a.agent"]
    monkeypatch.undo()
    with pytest.raises(AgentError, match="cannot be written"):
        agent.save(tmp_path / "nowhere" / "a.agent", KEY)


def test_an_agent_whose_folds_diverged_is_saved_without_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_of("number")
    agent.observe(*examples("number", 12))
    whole = agent_module.cross_validate

    def broken(*given: Any, **named: Any) -> Held:
        held = whole(*given, **named)
        held.vectors["adapted"][3, 0] = torch.inf  # seen by no prediction of an own example
        return held

    monkeypatch.setattr(agent_module, "cross_validate", broken)
    agent.learn("adapted")
    found = agent.act(agent.x)
    assert found.interval is None
    assert found.note == "models of parts of the examples diverged: no interval"
    agent.save(tmp_path / "a.agent", KEY)
    again = PersonalAgent.load(tmp_path / "a.agent", KEY)
    assert torch.equal(again.act(agent.x).outputs, found.outputs)


def test_examples_show_in_no_repr_and_no_error(tmp_path: Path) -> None:
    agent, path = taught_once(), tmp_path / "a.agent"
    assert repr(agent) == "PersonalAgent(run='tiny', examples redacted)"
    agent.save(path, Passphrase(WORDS), cost=MIN_COST)
    held = agent.contents()
    answer, rows = agent.act(agent.x), Rows(agent.x, agent.y, {})
    for kept in (
        held,
        held.learned,
        answer,
        rows,
        agent.explain(),
        agent.observe(agent.x, agent.y),
    ):
        assert re.fullmatch(r"<[a-zA-Z_.]+ object at 0x[0-9a-f]+>", repr(kept))
    values = [f"{value:.4f}" for value in agent.x.ravel().tolist()]
    attempts = (
        lambda: PersonalAgent.load(path, Passphrase("wrong " + WORDS)),
        lambda: agent.observe(agent.x + 7, agent.y),
        lambda: PersonalAgent.of(decode(swap("x", torch.tensor(agent.x) + 7))),
    )
    for attempt in attempts:
        try:
            attempt()
        except Exception:
            shown = traceback.format_exc()
            assert WORDS not in shown
            assert not [value for value in values if value in shown]
        else:
            pytest.fail("nothing was refused")


def test_keys_are_read_from_files_of_one_s_own(tmp_path: Path) -> None:
    assert key_in(Path(key_file(tmp_path))).reveal() == KEY.reveal()
    words = Path(key_file(tmp_path, WORDS.encode() + b"\n", "words"))
    assert passphrase_in(words).reveal() == WORDS.encode()
    for content, reason in (
        (b"one line of words\nanother", "more than one line"),
        (b"\xff\xff words of no text", "not UTF-8"),
        (bytes(5000), "larger than 4,096 bytes"),
        (b"short", "fewer than 8 characters"),
    ):
        with pytest.raises(Exception, match=reason):
            passphrase_in(Path(key_file(tmp_path, content, "words")))
    words.chmod(0o640)
    with pytest.raises(AgentError, match="others can read"):
        passphrase_in(words)
    with pytest.raises(AgentError, match="cannot be read"):
        key_in(tmp_path / "nowhere")
