"""An interrupt, or memory that gives out, inside of a call: no sum follows, and no key is kept.

The aggregator adds vectors and takes masks off in place. A call that ended halfway and is made
again would do one of them twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crypto import he_pool, masking_aggregator
from crypto.errors import OutOfOrder
from crypto.he_parameters import parameters_for
from crypto.he_pool import Job, Task, decrypt_all
from crypto.he_seal import KeyPair, SealFailed, scheme_for
from crypto.secure_sum import SECURE_SUMS
from tests.crypto.harness import Run, input_step, make_vectors, terms_for
from tests.crypto.restarts import restored_aggregator

PARAMETERS = parameters_for(20, 3, 5)
ENDINGS = (KeyboardInterrupt, MemoryError)


def attempt(name: str) -> Run:
    terms = terms_for(name, 4)
    return Run(name, terms, make_vectors(terms))


def assert_over(run: Run, message: bytes) -> None:
    """Neither the aggregator nor the one that its state gives goes on."""
    for aggregator in (run.aggregator, restored_aggregator(run, run.aggregator.save())):
        with pytest.raises(OutOfOrder, match="over"):
            aggregator.receive(2, message)
        with pytest.raises(OutOfOrder, match="over"):
            aggregator.advance()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", sorted(SECURE_SUMS))
def test_a_vector_is_not_added_twice(
    name: str, ending: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = attempt(name)
    aggregator: Any = run.aggregator
    real, added = aggregator._reader, []

    def reader(step: object) -> object:
        read = real(step)

        def ended(sender: int, message: bytes) -> None:
            read(sender, message)
            if len(run.requests) == input_step(name) + 1 and sender == 2 and not added:
                added.append(message)
                raise ending

        return ended

    monkeypatch.setattr(aggregator, "_reader", reader)
    with pytest.raises(ending):
        run.drive()
    (message,) = added
    assert_over(run, message)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_mask_is_not_taken_off_twice(
    at: int, ending: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, count = attempt("masking"), 0
    real = masking_aggregator.subtract_stream

    def ended(total: Any, key: bytes) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise ending
        real(total, key)

    monkeypatch.setattr(masking_aggregator, "subtract_stream", ended)
    with pytest.raises(ending):
        run.drive()
    assert_over(run, run.answers[-1][2])


def kept_by(error: pytest.ExceptionInfo[BaseException]) -> bytes:
    """All bytes in the frames of an exception below the test's own, and in the tasks there."""
    values = [v for entry in error.traceback[1:] for v in entry.frame.f_locals.values()]
    values += [v.key for v in values if isinstance(v, Task)]
    return b"|".join(v for v in values if isinstance(v, bytes))


def interrupted(task: Task) -> bytes:
    """As where the pipe to a worker is full: its write has no frame that could keep the task."""
    del task
    raise KeyboardInterrupt


def kept(task: Task) -> bytes:
    raise KeyboardInterrupt


def test_the_detector_finds_a_key_in_a_frame() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        kept(Task(Job.DECRYPT, PARAMETERS, 0, 1, b"the key"))
    assert b"the key" in kept_by(caught)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SealFailed])
def test_an_error_of_the_pool_that_somebody_keeps_holds_no_key(
    ending: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyPair(scheme_for(PARAMETERS))
    monkeypatch.setattr(he_pool, "_workers", lambda rows: 2)
    monkeypatch.setattr(he_pool.sys, "executable", "/bin/false")
    if ending is KeyboardInterrupt:
        monkeypatch.setattr(Task, "encode", interrupted)
    ciphertexts = np.ones((2, 2, len(PARAMETERS.data_primes), PARAMETERS.degree), dtype=np.uint64)
    with pytest.raises(ending) as caught:
        decrypt_all(PARAMETERS, keys, ciphertexts)
    assert "_spread" in [entry.name for entry in caught.traceback]
    assert keys.reveal() not in kept_by(caught)
