"""Many ciphertexts at once: spread over processes from the size on where it pays.

SEAL's binding holds the interpreter's lock, so that threads gain nothing. Workers are fresh
interpreters, never forks of a process with threads, made for one operation and gone with it.
Nothing is pickled. Words pass through anonymous memory that both sides map: it has no name and
goes with its last holder. Keys pass through a worker's standard input, a pipe, and never through
an argument or a file. Each worker draws its own randomness, since SEAL reads the operating
system's for every encryption.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Reader, Writer
from crypto.errors import Malformed
from crypto.he_parameters import Parameters
from crypto.he_seal import Encryptor, SealFailed, SecretKey, scheme_for
from crypto.progress import Ticker

Words = NDArray[np.uint64]

# A worker takes 0.2 s of a core to start; a row 1.0 ms to encrypt and 0.5 ms to decrypt. With two
# cores that is even at 400 and 800 rows.
POOL_FROM: Final = 1024
MAX_WORKERS: Final = 16


class Job(IntEnum):
    """What a worker does with its rows."""

    ENCRYPT = 1
    DECRYPT = 2


@dataclass(frozen=True, repr=False)
class Task:
    """One worker's share, as it stands on its standard input.

    Attributes:
        job: what to do.
        parameters: of the BFV instance.
        first: first row.
        last: row behind the last one.
        key: words of the public key, or bytes of the secret one.
    """

    job: Job
    parameters: Parameters
    first: int
    last: int
    key: bytes

    def encode(self) -> bytes:
        """Encode strictly."""
        p = self.parameters
        writer = Writer().u8(self.job).u32(p.degree).u8(p.lane).u8(p.lanes)
        writer.u8(len(p.data_primes))
        for prime in p.key_primes:
            writer.u64(prime)
        writer.u32(p.ciphertexts).u32(self.first).u32(self.last)
        return writer.sized(self.key).done()

    @classmethod
    def decode(cls, data: bytes) -> Task:
        """Inverse of encode.

        Raises:
            Malformed: not exactly one task.
        """
        reader = Reader(data)
        number = reader.u8()
        if number not in tuple(Job):
            raise Malformed(f"there is no job {number}")
        degree, lane, lanes = reader.u32(), reader.u8(), reader.u8()
        primes = tuple(reader.u64() for _ in range(reader.u8()))
        parameters = Parameters(degree, lane, lanes, primes, reader.u64(), reader.u32())
        task = cls(Job(number), parameters, reader.u32(), reader.u32(), reader.sized())
        reader.end()
        return task


def encrypt_all(parameters: Parameters, key: Words, coefficients: Words) -> Words:
    """Fresh ciphertexts [rows, 2, data primes, N] of coefficients [rows, N].

    Args:
        parameters: of the BFV instance.
        key: public key, [2, key primes, N].
        coefficients: each below t.

    Raises:
        SealFailed: a worker ended early; nothing was encrypted.
    """
    rows, primes = len(coefficients), len(parameters.data_primes)
    ticker = Ticker("encrypting: ciphertext", rows)
    if _workers(rows) == 1:
        encryptor = Encryptor(scheme_for(parameters), key)
        found = np.empty((rows, 2, primes, parameters.degree), dtype=np.uint64)
        for at, row in enumerate(coefficients):
            found[at] = encryptor.encrypt(row)
            ticker.add(1)
        return found
    width = 2 * primes * parameters.degree
    words = _spread(Job.ENCRYPT, parameters, key.tobytes, coefficients, width, ticker)
    return words.reshape(rows, 2, primes, parameters.degree)


def decrypt_all(
    parameters: Parameters, key: SecretKey, ciphertexts: Words
) -> tuple[Words, tuple[int, ...]]:
    """Coefficients [rows, N] of ciphertexts [rows, 2, data primes, N], and their noise budgets.

    Raises:
        SealFailed: a worker ended early, or the key was erased.
    """
    rows = len(ciphertexts)
    ticker = Ticker("decrypting: ciphertext", rows)
    if _workers(rows) == 1:
        found = np.empty((rows, parameters.degree), dtype=np.uint64)
        budgets = []
        for at, words in enumerate(ciphertexts):
            found[at], budget = key.decrypt(words)
            budgets.append(budget)
            ticker.add(1)
        return found, tuple(budgets)
    width = parameters.degree + 1
    both = _spread(Job.DECRYPT, parameters, key.reveal, ciphertexts, width, ticker)
    both = both.reshape(rows, width)
    return both[:, :-1], tuple(int(budget) for budget in both[:, -1])


def mapped(fd: int, words: int) -> Words:
    """Anonymous memory as an array of words; it stays as long as the array is held."""
    return np.frombuffer(mmap.mmap(fd, 8 * words), dtype="<u8")


def _workers(rows: int) -> int:
    """As many as there are cores that nobody else keeps busy; 1 is this process itself."""
    if rows < POOL_FROM:
        return 1
    cores, others = len(os.sched_getaffinity(0)), os.getloadavg()[0] - 1
    return max(1, min(MAX_WORKERS, round(cores - max(0.0, others))))


def _spread(
    job: Job,
    parameters: Parameters,
    key: Callable[[], bytes],
    source: Words,
    width: int,
    ticker: Ticker,
) -> Words:
    """Have every worker fill its rows, `width` words each.

    The key is taken out for each worker alone: an exception keeps what its frames hold.
    """
    rows = len(source)
    with _anonymous(source.size) as taken, _anonymous(rows * width) as given:
        mapped(taken, source.size)[:] = source.reshape(-1)
        ends = np.linspace(0, rows, _workers(rows) + 1).astype(int)
        workers: list[subprocess.Popen[bytes]] = []
        try:
            for _ in ends[1:]:
                workers.append(_start(taken, given))
            for worker, (first, last) in zip(workers, pairwise(ends), strict=True):
                _hand_over(worker, Task(job, parameters, int(first), int(last), key()))
            _watch(workers, ticker)
        finally:
            for worker in workers:
                _end(worker)
        return mapped(given, rows * width)


@contextlib.contextmanager
def _anonymous(words: int) -> Iterator[int]:
    fd = os.memfd_create("fedmeta-he-pool", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, 8 * words)
        yield fd
    finally:
        os.close(fd)


def _start(taken: int, given: int) -> subprocess.Popen[bytes]:
    here = str(Path(__file__).resolve().parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "crypto.he_worker", str(taken), str(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(taken, given),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )


def _hand_over(worker: subprocess.Popen[bytes], task: Task) -> None:
    """A worker that has ended already shows in its exit status."""
    try:
        if worker.stdin is not None:
            with contextlib.suppress(BrokenPipeError), worker.stdin:
                worker.stdin.write(task.encode())
    finally:
        del task  # an interrupt while the pipe is full would keep the key with this frame


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()


def _watch(workers: Sequence[subprocess.Popen[bytes]], ticker: Ticker) -> None:
    """Count the bytes that workers write, one for each row, until all have ended well."""
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            if worker.stdout is not None:
                selector.register(worker.stdout, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                told = os.read(key.fd, 4096)
                ticker.add(len(told))
                if not told:
                    selector.unregister(key.fileobj)
    ended = [worker.wait() for worker in workers]
    if any(ended):
        raise SealFailed(f"worker processes ended with {ended}: is there memory for them?")
