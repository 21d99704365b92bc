"""The log refuses any flipped byte, and any entry dropped, swapped, duplicated or cut off."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.canonical import dumps, loads, sha256
from audit.entry import encode_entry
from audit.errors import AuditError, VerificationFailed
from audit.log import AuditLog
from audit.merkle import leaf_hash, root_of
from audit.note import Checkpoint
from audit.verify import Verified, verify_log
from tests.audit import scenario

VKEY = scenario.signer().vkey


class Written:
    """A finished log, its lines, and the heads that were signed on the way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        log = scenario.write_log(directory / "original")
        log.close()
        self.log = (directory / "original" / "log.jsonl").read_bytes()
        self.checkpoint = (directory / "original" / "checkpoint").read_bytes()
        self.leaves = (directory / "original" / "leaves").read_bytes()
        self.lines = self.log.splitlines(keepends=True)
        self.good = verify_log(directory / "original", vkey=VKEY, pinned=None, spend=None)

    def head(self, size: int) -> bytes:
        """The head as it was signed after `size` entries."""
        root = root_of([leaf_hash(line[:-1]) for line in self.lines[:size]])
        return scenario.signer().sign(Checkpoint(scenario.ORIGIN, size, root))

    def verify(
        self,
        log: bytes,
        *,
        checkpoint: bytes | None = None,
        leaves: bytes | None = None,
        pinned: bytes | None = None,
        vkey: str | None = VKEY,
    ) -> Verified:
        case = self.directory / "case"
        case.mkdir(exist_ok=True)
        (case / "log.jsonl").write_bytes(log)
        (case / "checkpoint").write_bytes(self.checkpoint if checkpoint is None else checkpoint)
        (case / "leaves").write_bytes(self.leaves if leaves is None else leaves)
        return verify_log(case, vkey=vkey, pinned=pinned, spend=None)

    def first_bad(self, log: bytes, **options: Any) -> int | None:
        """The index that the verifier names; fails where it accepts."""
        with pytest.raises(VerificationFailed) as caught:
            self.verify(log, **options)
        assert caught.value.reason
        return caught.value.index


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("written"))


def test_the_untouched_log_is_accepted(written: Written) -> None:
    assert written.verify(written.log, pinned=written.head(5)).root == written.good.root
    assert written.good.size == len(written.lines) == 13
    assert written.good.tip == sha256(written.lines[-1][:-1])


@settings(max_examples=400)
@given(st.data())
def test_a_flipped_byte_anywhere_names_its_entry(written: Written, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(written.log) - 1))
    mask = data.draw(st.integers(1, 255))
    changed = bytearray(written.log)
    changed[position] ^= mask
    index = written.log[:position].count(b"\n")
    assert written.first_bad(bytes(changed)) == index
    # Without the leaf hashes it is refused all the same, at this entry or before it.
    named = written.first_bad(bytes(changed), leaves=b"")
    assert named is not None
    assert named <= index


def test_every_bit_of_one_digit_quote_and_newline_counts(written: Written) -> None:
    line = written.lines[5]
    start = len(b"".join(written.lines[:5]))
    for position in (0, line.index(b"prev") + 10, line.index(b'"time"'), len(line) - 1):
        for bit in range(8):
            changed = bytearray(written.log)
            changed[start + position] ^= 1 << bit
            assert written.first_bad(bytes(changed)) == 5


@settings(max_examples=60)
@given(st.data())
def test_a_dropped_swapped_or_duplicated_entry_is_named(
    written: Written, data: st.DataObject
) -> None:
    count = len(written.lines)
    first, second = sorted(
        data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))
    )
    dropped = [*written.lines[:first], *written.lines[first + 1 :]]
    assert written.first_bad(b"".join(dropped)) == first
    duplicated = [*written.lines[: second + 1], written.lines[first], *written.lines[second + 1 :]]
    assert written.first_bad(b"".join(duplicated)) == second + 1
    swapped = list(written.lines)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    assert written.first_bad(b"".join(swapped)) == first
    for lines, index in ((dropped, first), (duplicated, second + 1), (swapped, first)):
        named = written.first_bad(b"".join(lines), leaves=b"")
        assert named is not None
        assert named <= index


@settings(max_examples=60)
@given(st.data())
def test_a_log_cut_off_is_refused_where_it_ends(written: Written, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(written.log) - 1))
    cut = written.log[:length]
    assert written.first_bad(cut) == cut.count(b"\n")
    named = written.first_bad(cut, leaves=b"")
    assert named == cut.count(b"\n")


def test_a_missing_last_newline_is_refused(written: Written) -> None:
    assert written.first_bad(written.log[:-1]) == len(written.lines) - 1
    assert written.first_bad(written.log[:-1], leaves=b"") == len(written.lines) - 1


def test_a_log_set_back_with_its_head_shows_against_the_pin_only(written: Written) -> None:
    for size in range(len(written.lines)):
        cut, head = b"".join(written.lines[:size]), written.head(size)
        assert written.verify(cut, checkpoint=head).size == size
        assert written.first_bad(cut, checkpoint=head, pinned=written.checkpoint) == size
    note = " ".join(written.good.not_checked)
    assert "rollback" in note


@settings(max_examples=250)
@given(st.data())
def test_a_flipped_byte_of_the_head_is_refused(written: Written, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(written.checkpoint) - 1))
    changed = bytearray(written.checkpoint)
    changed[position] ^= data.draw(st.integers(1, 255))
    assert written.first_bad(written.log, checkpoint=bytes(changed)) is None
    assert written.first_bad(written.log, pinned=bytes(changed)) is None
    try:  # Nobody's key: what is stated is unchanged, or it is refused.
        stated = written.verify(written.log, checkpoint=bytes(changed), vkey=None)
    except VerificationFailed:
        return
    assert (stated.origin, stated.size, stated.root, stated.tip) == (
        written.good.origin,
        written.good.size,
        written.good.root,
        written.good.tip,
    )


@given(st.data())
def test_damaged_leaf_hashes_never_decide(written: Written, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(written.leaves) - 1))
    changed = bytearray(written.leaves)
    changed[position] ^= data.draw(st.integers(1, 255))
    for leaves in (bytes(changed), written.leaves[:position], written.leaves + b"more"):
        assert written.verify(written.log, leaves=leaves).root == written.good.root


def relink(lines: list[bytes]) -> list[bytes]:
    """Repair every `prev` after a change, as an attacker without the key would."""
    result: list[bytes] = []
    for line in lines:
        value = loads(line.rstrip(b"\n"))
        value["prev"] = sha256(result[-1].rstrip(b"\n")).hex() if result else None
        result.append(dumps(value) + b"\n")
    return result


def test_a_repaired_chain_still_contradicts_the_signed_root(written: Written) -> None:
    for index in range(3, len(written.lines)):
        value = loads(written.lines[index][:-1])
        value["time"] = "2026-02-01T00:00:00.000000Z"
        lines = [*written.lines[:index], dumps(value) + b"\n", *written.lines[index + 1 :]]
        forged = b"".join(relink(lines))
        assert written.first_bad(forged) == index
        assert written.first_bad(forged, leaves=b"", pinned=written.head(3)) is not None
    # A report is named by no later entry: only the root shows that it was changed.
    forged = written.log.replace(b"report.json", b"report.jsom")
    assert written.first_bad(forged, leaves=b"", pinned=written.head(7)) == 7
    assert written.first_bad(forged, leaves=b"") == 0


def sign(directory: Path, lines: list[bytes], *, root_lines: list[bytes] | None = None) -> None:
    """Write entries and a head signed over `root_lines`, with none of the log's own checks."""
    leaves = [leaf_hash(line) for line in (lines if root_lines is None else root_lines)]
    head = Checkpoint(scenario.ORIGIN, len(leaves), root_of(leaves))
    directory.mkdir(exist_ok=True)
    (directory / "log.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    (directory / "checkpoint").write_bytes(scenario.signer().sign(head))


def entry(index: int, kind: str, body: dict[str, object], prev: bytes | None) -> bytes:
    return encode_entry(
        kind, body, index=index, prev=prev, run=scenario.digest("run"), time=scenario.clock()
    )


def test_both_bindings_are_checked_on_their_own(tmp_path: Path) -> None:
    """CVE-2022-36111: a verifier that trusts one of tree and chain accepts a forged log."""
    genesis = entry(0, "genesis", scenario.genesis(), None)
    granted = entry(1, "budget-granted", scenario.grant(), sha256(genesis))
    unlinked = entry(1, "budget-granted", scenario.grant(), sha256(b"another past"))
    sign(tmp_path, [genesis, granted])
    assert verify_log(tmp_path, vkey=VKEY, pinned=None, spend=None).size == 2
    sign(tmp_path, [genesis, unlinked])  # the tree holds, the chain does not
    with pytest.raises(VerificationFailed, match="entry 1: prev"):
        verify_log(tmp_path, vkey=VKEY, pinned=None, spend=None)
    sign(tmp_path, [genesis, granted], root_lines=[genesis, unlinked])  # and the other way round
    with pytest.raises(VerificationFailed, match="root differs"):
        verify_log(tmp_path, vkey=VKEY, pinned=None, spend=None)


def test_a_signed_log_in_wrong_order_is_refused(tmp_path: Path) -> None:
    genesis = entry(0, "genesis", scenario.genesis(), None)
    release = entry(1, "round-release", scenario.release(1, "0" * 64), sha256(genesis))
    sign(tmp_path, [genesis, release])
    with pytest.raises(VerificationFailed, match="entry 1: no intent is open"):
        verify_log(tmp_path, vkey=VKEY, pinned=None, spend=None)


def test_a_history_rewritten_by_the_key_s_holder_shows_against_the_pin(
    written: Written, tmp_path: Path
) -> None:
    lines = [line[:-1] for line in written.lines]
    genesis = entry(0, "genesis", scenario.genesis(unprotected=["something else"]), None)
    forged = [line[:-1] for line in relink([genesis + b"\n", written.lines[1], written.lines[2]])]
    sign(tmp_path, forged)
    assert verify_log(tmp_path, vkey=VKEY, pinned=None, spend=None).trust == "given"
    with pytest.raises(VerificationFailed, match="history was rewritten"):
        verify_log(tmp_path, vkey=VKEY, pinned=written.head(2), spend=None)
    sign(tmp_path, lines)
    assert verify_log(tmp_path, vkey=VKEY, pinned=written.head(2), spend=None).trust == "pinned"
    assert verify_log(tmp_path, vkey=VKEY, pinned=written.head(0), spend=None).pinned_size == 0


def test_entries_beyond_the_head_are_not_covered(written: Written) -> None:
    size = len(written.lines) - 1
    assert written.first_bad(written.log, checkpoint=written.head(size)) == size


@pytest.mark.parametrize("name", ["log.jsonl", "checkpoint"])
def test_a_missing_file_fails_the_verification(written: Written, tmp_path: Path, name: str) -> None:
    shutil.copytree(written.directory / "original", tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    with pytest.raises(VerificationFailed, match=name):
        verify_log(tmp_path / "copy", vkey=VKEY, pinned=None, spend=None)


def test_trust_is_said_and_never_taken_from_the_log(written: Written) -> None:
    other = scenario.signer(2).vkey
    log, original = written.log, written.directory / "original"
    for vkey, why in ((other, "no signature by key"), ("nonsense", "key: ")):
        with pytest.raises(VerificationFailed, match=why):
            written.verify(log, vkey=vkey)
    with pytest.raises(AuditError, match="without the key"):
        verify_log(original, vkey=None, pinned=written.checkpoint, spend=None)
    none = verify_log(original, vkey=None, pinned=None, spend=None)
    assert none.trust == "none"
    assert any(text.startswith("signature") for text in none.not_checked)
    pinned = verify_log(original, vkey=VKEY, pinned=written.checkpoint, spend=None)
    assert not any(text.startswith(("signature", "rollback")) for text in pinned.not_checked)
    assert pinned.to_json()["root"] == written.good.root.hex()


def test_an_empty_log_verifies_as_empty(tmp_path: Path) -> None:
    AuditLog.create(tmp_path, scenario.signer(), clock=scenario.clock).close()
    verified = verify_log(tmp_path, vkey=VKEY, pinned=None, spend=None)
    assert (verified.size, verified.run, verified.tip) == (0, None, None)
    assert verified.to_json()["tip"] is None


def test_an_open_round_and_a_seeded_run_are_reported(tmp_path: Path) -> None:
    log = scenario.start(tmp_path, not_private=True)
    log.append("round-intent", scenario.intent(1))
    log.close()
    verified = verify_log(tmp_path, vkey=VKEY, pinned=None, spend=None)
    assert (verified.open_round, verified.not_private) == (1, True)


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from(["log.jsonl", "checkpoint", "leaves"]))
def test_no_bytes_make_the_verifier_fail_otherwise(
    written: Written, content: bytes, name: str
) -> None:
    parts: dict[str, bytes] = {"log.jsonl": written.log, "checkpoint": written.checkpoint}
    parts["leaves"] = written.leaves
    parts[name] = content
    check: Callable[[], Verified] = lambda: written.verify(  # noqa: E731
        parts["log.jsonl"], checkpoint=parts["checkpoint"], leaves=parts["leaves"]
    )
    if name == "leaves":
        assert check().root == written.good.root
    else:
        with pytest.raises(VerificationFailed):
            check()


def test_a_huge_claimed_size_costs_nothing(written: Written) -> None:
    stated = Checkpoint(scenario.ORIGIN, 10**15, bytes(32)).text
    note = f"{stated}\n— x AAAAAAA=\n".encode()
    with pytest.raises(VerificationFailed, match="missing"):
        written.verify(written.log, checkpoint=note, vkey=None)


def test_the_verifier_loads_neither_the_writer_nor_torch() -> None:
    program = (
        "import sys, audit.verify, audit.spend, audit.__main__;"
        "names = {'audit.log', 'audit.store', 'audit.pin', 'torch', 'opacus', 'privacy',"
        " 'crypto', 'secure_fedmeta'};"
        "sys.exit(', '.join(names & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
