"""A worker of he_pool: `python -m crypto.he_worker TAKEN GIVEN`, the numbers of two open files.

It reads one task from standard input, works on its rows of the one file into the other, and writes
a byte for every row that is done. It keeps nothing.
"""

from __future__ import annotations

import os
import sys

import numpy as np

from crypto.he_pool import Job, Task, mapped
from crypto.he_seal import Encryptor, SecretKey, scheme_for


def main() -> None:
    """Do one task."""
    taken, given = (int(number) for number in sys.argv[1:])
    task = Task.decode(sys.stdin.buffer.read())
    p, scheme = task.parameters, scheme_for(task.parameters)
    shape = (2, len(p.data_primes), p.degree)
    source = mapped(taken, os.fstat(taken).st_size // 8)
    target = mapped(given, os.fstat(given).st_size // 8)
    if task.job is Job.ENCRYPT:
        key = np.frombuffer(task.key, dtype="<u8").reshape(2, len(p.key_primes), p.degree)
        encryptor = Encryptor(scheme, key)
        plain, words = source.reshape(-1, p.degree), target.reshape(-1, *shape)
        for row in range(task.first, task.last):
            words[row] = encryptor.encrypt(plain[row])
            os.write(1, b".")
        return
    secret = SecretKey.from_bytes(scheme, task.key)
    words, rows = source.reshape(-1, *shape), target.reshape(-1, p.degree + 1)
    for row in range(task.first, task.last):
        rows[row, :-1], rows[row, -1] = secret.decrypt(words[row])
        os.write(1, b".")


if __name__ == "__main__":
    main()
