"""Ciphertexts over worker processes: the same sums, fresh noise in each, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto import he_pool
from crypto.errors import Malformed
from crypto.he_parameters import DEGREE, parameters_for
from crypto.he_pool import Job, Task, decrypt_all, encrypt_all
from crypto.he_seal import KeyPair, SealFailed, scheme_for
from crypto.progress import Ticker, listening
from tests.crypto.harness import Run, make_terms, make_vectors, total

PARAMETERS = parameters_for(23, 100, 6 * 8192)
KEYS = KeyPair(scheme_for(PARAMETERS))
TOP = 1 << PARAMETERS.plain_bits


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every operation takes three workers; their arguments and environments."""
    started: list[list[str]] = []
    popen = subprocess.Popen

    def watched(command: list[str], **named: object) -> object:
        started.append([*command, *map(str, named["env"].values())])  # type: ignore[attr-defined]
        return popen(command, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(he_pool, "_workers", lambda rows: min(3, rows))
    monkeypatch.setattr(he_pool.subprocess, "Popen", watched)
    return started


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, TOP, (count, DEGREE), dtype=np.uint64)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_workers_encrypt_and_decrypt_every_row_in_its_place(
    count: int, workers: list[list[str]]
) -> None:
    plain = rows(count)
    words = encrypt_all(PARAMETERS, KEYS.public, plain)
    for row, ciphertext in zip(plain, words, strict=True):
        found, budget = KEYS.decrypt(ciphertext)
        np.testing.assert_array_equal(found, row)
        assert budget > 0
    found, budgets = decrypt_all(PARAMETERS, KEYS, words)
    np.testing.assert_array_equal(found, plain)
    assert budgets == tuple(KEYS.decrypt(ciphertext)[1] for ciphertext in words)
    assert len(workers) == 2 * min(3, count)


def test_no_two_workers_give_equal_ciphertexts_of_equal_plaintexts(
    workers: list[list[str]],
) -> None:
    """Randomness that workers shared would show in the first polynomials of some pair."""
    plain = np.repeat(rows(1), 6, axis=0)
    words = np.concatenate([encrypt_all(PARAMETERS, KEYS.public, plain) for _ in range(2)])
    assert len({ciphertext.tobytes() for ciphertext in words}) == 12
    assert len({ciphertext[1].tobytes() for ciphertext in words}) == 12
    assert len(workers) == 6


def test_keys_are_in_no_argument_or_environment(workers: list[list[str]]) -> None:
    words = encrypt_all(PARAMETERS, KEYS.public, rows(3))
    decrypt_all(PARAMETERS, KEYS, words)
    secret = KEYS.reveal()
    shown = "\n".join(part for started in workers for part in started)
    for at in range(0, len(secret) - 8, 4099):
        assert secret[at : at + 8].hex() not in shown
    assert secret[:8].hex() not in repr(Task(Job.DECRYPT, PARAMETERS, 0, 1, secret))


def children() -> set[str]:
    """Processes that this one started, those included that ended and were not waited for."""
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text().split()}


def test_nothing_is_left_open_or_running(workers: list[list[str]]) -> None:
    others = children()
    encrypt_all(PARAMETERS, KEYS.public, rows(3))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    encrypt_all(PARAMETERS, KEYS.public, rows(3))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert children() == others
    left = os.posix_spawnp("true", ["true"], os.environ)
    assert children() == others | {str(left)}  # until it is waited for
    os.waitpid(left, 0)


def test_it_works_beside_threads(workers: list[list[str]]) -> None:
    stop = threading.Event()
    idle = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in idle:
        thread.start()
    try:
        words = encrypt_all(PARAMETERS, KEYS.public, rows(3))
    finally:
        stop.set()
    np.testing.assert_array_equal(decrypt_all(PARAMETERS, KEYS, words)[0], rows(3))
    for thread in idle:
        thread.join()


def test_a_worker_that_ends_early_is_an_error(
    workers: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(he_pool.sys, "executable", "/bin/false")
    with pytest.raises(SealFailed, match="ended with"):
        encrypt_all(PARAMETERS, KEYS.public, rows(3))


def test_an_erased_key_decrypts_nothing(workers: list[list[str]]) -> None:
    keys = KeyPair(scheme_for(PARAMETERS))
    words = encrypt_all(PARAMETERS, keys.public, rows(2))
    keys.erase()
    with pytest.raises(SealFailed, match="erased"):
        decrypt_all(PARAMETERS, keys, words)


def test_a_whole_sum_over_workers_is_exact(workers: list[list[str]]) -> None:
    terms = make_terms(3, length=60_000)
    run = Run("he", terms, make_vectors(terms))
    np.testing.assert_array_equal(run.drive().total, total(terms, run.vectors, terms.cohort))
    assert len(workers) == 4 * 3


@pytest.mark.parametrize(
    ("cores", "load", "rows", "expected"),
    [
        (8, 0.0, he_pool.POOL_FROM - 1, 1),
        (8, 0.0, he_pool.POOL_FROM, 8),
        (8, 1.0, he_pool.POOL_FROM, 8),
        (8, 4.2, he_pool.POOL_FROM, 5),
        (2, 20.0, he_pool.POOL_FROM, 1),
        (1, 0.0, he_pool.POOL_FROM, 1),
        (96, 0.0, he_pool.POOL_FROM, he_pool.MAX_WORKERS),
    ],
)
def test_workers_are_for_large_vectors_and_cores_that_are_free(
    cores: int, load: float, rows: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert he_pool._workers(rows) == expected


def test_a_task_reads_back_as_it_was_written() -> None:
    for task in (
        Task(Job.ENCRYPT, PARAMETERS, 0, 7, KEYS.public.tobytes()),
        Task(Job.DECRYPT, parameters_for(28, 3, 5000), 3, 4, b""),
    ):
        assert Task.decode(task.encode()) == task


@given(data=st.binary(max_size=100))
def test_noise_is_no_task(data: bytes) -> None:
    with pytest.raises(Malformed):
        Task.decode(data + b"\xff\xff")


def test_progress_is_told_after_two_seconds_and_not_too_often() -> None:
    now = [0.0]
    told: list[str] = []
    with listening(told.append):
        ticker = Ticker("encrypting: ciphertext", 10, clock=lambda: now[0])
    for now[0] in (0.5, 1.9, 2.1, 2.2, 2.7, 9.0, 9.8, 10.0):  # at 9.0 every 0.9 seconds
        ticker.add(1)
    assert told == [
        "encrypting: ciphertext 3 of 10",
        "encrypting: ciphertext 5 of 10",
        "encrypting: ciphertext 6 of 10",
        "encrypting: ciphertext 8 of 10",
    ]
    Ticker("quiet", 1, clock=lambda: 9.0).add(1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_row_is_counted(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[int] = []
    monkeypatch.setattr(he_pool, "_workers", lambda rows: count)
    monkeypatch.setattr(Ticker, "add", lambda self, parts: added.append(parts))
    words = encrypt_all(PARAMETERS, KEYS.public, rows(6))
    assert sum(added) == 6
    decrypt_all(PARAMETERS, KEYS, words)
    assert sum(added) == 12
