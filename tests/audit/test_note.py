from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import NoteRefused
from audit.note import Checkpoint, LogSigner, Verifier, read_unverified
from tests.audit import scenario

# From the C2SP signed-note specification and from golang.org/x/mod/sumdb/note.
C2SP_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONn"
    "cAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb"
    "6KE6RyyBwJnAM=\n"
)
SIGNER = scenario.signer()
CHECKPOINT = Checkpoint(SIGNER.origin, 7, bytes(range(32)))
NOTE = SIGNER.sign(CHECKPOINT)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_specification_s_note_verifies() -> None:
    verifier = Verifier.from_vkey(C2SP_VKEY)
    assert verifier.vkey == C2SP_VKEY
    assert verifier.open_text(C2SP_NOTE.encode()) == "This is an example message.\n"


def test_go_s_key_makes_go_s_signature(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(GO_KEY + "\n")
    path.chmod(0o600)
    signer = LogSigner.load(path)
    assert signer.vkey == GO_VKEY
    assert signer.sign_text(GO_TEXT).decode() == f"{GO_TEXT}\n{GO_SIGNATURE}"


def test_a_checkpoint_opens_to_what_was_signed() -> None:
    assert SIGNER.verifier.open(NOTE) == CHECKPOINT == read_unverified(NOTE)
    assert NOTE.decode().startswith(f"{SIGNER.origin}\n7\n{b64(bytes(range(32)))}\n\n— ")


@settings(max_examples=300)
@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_a_flipped_byte_of_a_note_is_refused(position: int, mask: int) -> None:
    changed = bytearray(NOTE)
    changed[position] ^= mask
    with pytest.raises(NoteRefused):
        SIGNER.verifier.open(bytes(changed))


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_otherwise(data: bytes) -> None:
    for note in (data, NOTE[:60] + data, NOTE + data):
        try:
            SIGNER.verifier.open(note)
        except NoteRefused:
            continue
        assert note == NOTE


def test_a_signature_has_one_spelling() -> None:
    """The last base64 digit before the padding has two bits that no byte uses."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body, last = NOTE.decode()[:-3], NOTE.decode()[-3]
    assert NOTE.decode().endswith("=\n")
    for unused in (1, 2, 3):
        respelt = body + digits[digits.index(last) | unused] + "=\n"
        assert b64(base64.b64decode(respelt.split(" ")[-1])) in NOTE.decode()
        with pytest.raises(NoteRefused, match="base64"):
            SIGNER.verifier.open(respelt.encode())


def test_signatures_of_others_are_ignored_and_ours_is_found_among_them() -> None:
    other = scenario.signer(2).sign_text(CHECKPOINT.text).decode().split("\n\n")[1]
    text, ours = NOTE.decode().split("\n\n")
    for lines in (other + ours, ours + other):
        assert SIGNER.verifier.open(f"{text}\n\n{lines}".encode()) == CHECKPOINT
    with pytest.raises(NoteRefused, match="no signature by key"):
        SIGNER.verifier.open(f"{text}\n\n{other}".encode())


def test_every_signature_that_claims_to_be_ours_must_be_right() -> None:
    wrong = f"— {SIGNER.origin} {b64(SIGNER.verifier.key_id + bytes(64))}\n".encode()
    with pytest.raises(NoteRefused, match="does not match"):
        SIGNER.verifier.open(NOTE + wrong)


def test_a_key_signs_and_reads_only_its_own_origin() -> None:
    foreign = Checkpoint("elsewhere", 7, bytes(32))
    with pytest.raises(NoteRefused, match="elsewhere"):
        SIGNER.sign(foreign)
    with pytest.raises(NoteRefused, match="elsewhere"):
        SIGNER.verifier.open(SIGNER.sign_text(foreign.text))


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"o\n1\n\n",
        b"\xff\n\n- x y\n",
        b"a\tb\n\n\xe2\x80\x94 n AAAAAAA=\n",
        b"o\n\n- n AAAAAAA=\n",
        "o\n\n— n AAAA\n".encode(),
        "o\n\n— n AAAAAAB=\n".encode(),
        "o\n\n— n !!!!\n".encode(),
        "o\n\n— n\n".encode(),
        b"x" * 70_000,
        ("o\n\n" + "— n AAAAAAA=\n" * 101).encode(),
    ],
)
def test_malformed_notes_are_refused(note: bytes) -> None:
    with pytest.raises(NoteRefused):
        read_unverified(note)


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\n" + b64(bytes(32)),
        "o\n01\n" + b64(bytes(32)) + "\n",
        "o\n-1\n" + b64(bytes(32)) + "\n",
        "o\n1\n" + b64(bytes(31)) + "\n",
        "o\n1\n" + b64(bytes(32)) + "\nextension\n",
        "a b\n1\n" + b64(bytes(32)) + "\n",
        "o\n" + "9" * 17 + "\n" + b64(bytes(32)) + "\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(NoteRefused):
        Checkpoint.from_text(text)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "a+b",
        C2SP_VKEY.replace("530d903a", "530d903b"),
        C2SP_VKEY[:-4],
        C2SP_VKEY.replace("example", "Example"),
        "x+00000000+" + b64(b"\x02" + bytes(32)),
        "a b+00000000+" + b64(b"\x01" + bytes(32)),
    ],
)
def test_malformed_keys_are_refused(vkey: str) -> None:
    with pytest.raises(NoteRefused):
        Verifier.from_vkey(vkey)


def test_a_signing_key_is_kept_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    SIGNER.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert LogSigner.load(path).vkey == SIGNER.vkey
    assert b64(b"\x01" * 32)[:20] not in repr(SIGNER)
    assert "redacted" in repr(SIGNER)
    with pytest.raises(FileExistsError):
        SIGNER.save(path)
    path.chmod(0o640)
    with pytest.raises(NoteRefused, match="0600"):
        LogSigner.load(path)


def test_a_damaged_signing_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in ("nothing", GO_KEY.replace("c74f20a3", "c74f20a4"), GO_VKEY):
        path.write_text(content)
        path.chmod(0o600)
        with pytest.raises(NoteRefused):
            LogSigner.load(path)
    with pytest.raises(NoteRefused, match="32 bytes"):
        LogSigner.generate("origin", bytes(31))
    for origin in ("", "a b", "a+b", "a\nb", "x" * 201):
        with pytest.raises(NoteRefused, match="origin"):
            LogSigner.generate(origin, bytes(32))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_accepts_the_signature_and_refuses_a_changed_text(tmp_path: Path) -> None:
    # RFC 8410: SubjectPublicKeyInfo of Ed25519 is this prefix and the 32 bytes of the key.
    der = bytes.fromhex("302a300506032b6570032100") + SIGNER.verifier.public
    text, line = NOTE.decode().split("\n\n")
    signature = base64.b64decode(line.split(" ")[2])[4:]
    (tmp_path / "key.der").write_bytes(der)
    (tmp_path / "signature").write_bytes(signature)
    for content, expected in ((text + "\n", True), (text.replace("7", "8") + "\n", False)):
        (tmp_path / "text").write_text(content)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin"]
        command += ["-inkey", "key.der", "-sigfile", "signature", "-in", "text"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert (done.returncode == 0) is expected, done.stderr
