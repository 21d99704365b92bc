"""Keys, seeds, shares and vectors never show: not in repr or str, an exception, or a pickle."""

from __future__ import annotations

import gc
import os
import pickle
import traceback
from collections.abc import Callable
from functools import partial
from types import FunctionType, ModuleType

import numpy as np
import pytest

from crypto.channel import Channel
from crypto.errors import CryptoError, KeyRefused
from crypto.hybrid import HybridKey
from crypto.keys import KEY_BYTES, AgreementKey, Identity, Secret
from crypto.masking_keys import ClientSecrets
from crypto.masking_messages import DealtShares
from crypto.secure_sum import SECURE_SUMS
from tests.crypto.harness import (
    Run,
    client_seat,
    identity,
    make_terms,
    make_vectors,
    payload_of,
    resign,
    seat,
    seeded,
    show,
    shown,
    terms_for,
)

MARK = 1_234_567_891_011


class Recorder:
    """Randomness that remembers what it gave out."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def __call__(self, length: int) -> bytes:
        self.given.append(os.urandom(length))
        return self.given[-1]


def shows(text: str, secrets: list[bytes]) -> list[str]:
    """Which secrets a text shows, as hexadecimal or as a bytes literal (any 8 bytes of them)."""
    found = []
    for secret in secrets:
        for at in range(0, len(secret) - 7, 4):
            part = secret[at : at + 8]
            if part.hex() in text.lower() or repr(part)[2:-1] in text:
                found.append(part.hex())
    return found


def recorded_run(name: str) -> tuple[Run, Recorder]:
    recorder = Recorder()
    terms = terms_for(name, 5, bits=50)
    vectors = {k: np.full(terms.length, MARK + k, dtype=np.int64) for k in terms.cohort}
    run = Run(name, terms, vectors)
    for k in terms.cohort:
        run.clients[k] = run.client(k, recorder)
    return run, recorder


def test_the_detector_detects() -> None:
    secret = bytes(range(200, 232))
    for text in (secret.hex(), secret.hex().upper(), repr(secret), f"key={secret!r}"):
        assert shows(text, [secret])
    assert not shows("Secret(redacted)", [secret])


@pytest.mark.parametrize("name", sorted(SECURE_SUMS))
def test_parties_do_not_show_their_state(name: str) -> None:
    run, recorder = recorded_run(name)
    texts: list[str] = []

    def look(step: int, client: int, message: bytes) -> bytes:
        parties: list[object] = [run, run.aggregator, *run.clients.values(), run.terms]
        if step:
            parties.remove(run)  # a test object, which holds the vectors
        for party in parties[1:]:
            texts.extend((repr(party), str(party)))
            for value in getattr(party, "__dict__", {}).values():
                if not isinstance(value, bytes | dict | np.ndarray):
                    texts.append(repr(value))
        return message

    run.drive({3: 2} if name == "masking" else {3: 0}, forge=look)
    secrets = [*recorder.given, *(identity(k)._value for k in range(6))]
    assert len(secrets) >= 6
    for text in texts:
        assert not shows(text, secrets)
        assert str(MARK // 100) not in text


def held_by(client: object) -> bytes:
    """All bytes that can be reached from a client, but for its roster key and its sources."""
    state = {k: v for k, v in vars(client).items() if k not in ("_identity", "_rand", "_vector")}
    found: list[bytes] = []
    seen: set[int] = set()
    waiting: list[object] = [state]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | FunctionType):
            continue
        seen.add(id(thing))
        if isinstance(thing, bytes):
            found.append(thing)
        waiting.extend(gc.get_referents(thing))
    return b"|".join(found)


def test_a_client_holds_no_secret_longer_than_it_needs_it() -> None:
    """Seeds go with the masked input, shares with the last answer.

    Whoever takes over clients afterwards finds nothing that opens recorded traffic.
    """
    run, recorder = recorded_run("masking")
    after: dict[int, bytes] = {}
    shares: list[bytes] = []

    def look(step: int, client: int, message: bytes) -> bytes:
        if client == 1:
            after[step] = held_by(run.clients[1])
            if step == 2:
                dealt = vars(run.clients[1])["_shares"].values()
                shares.extend(part for one in dealt for part in (one.mask_secret, one.self_seed))
        return message

    run.drive(forge=look)
    seeds = [value for value in recorder.given if len(value) == KEY_BYTES]
    assert (len(seeds), len(shares)) == (15, 10)
    assert sum(seed in after[1] for seed in seeds) == 3  # its own m, b and channel secret
    assert not any(seed in after[2] for seed in seeds)
    assert all(share in after[3] for share in shares)
    assert not any(secret in after[4] for secret in (*seeds, *shares))


def test_secret_objects_redact_themselves() -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    objects: list[object] = [
        Secret(secret),
        Identity.from_seed(secret),
        AgreementKey(secret, "test"),
        ClientSecrets.generate(lambda n: secret[:n]),
        DealtShares(secret, secret),
        HybridKey(secret, "test"),
        Channel("test/", bytes(32), HybridKey(secret, "test"), 1),
    ]
    for thing in objects:
        for text in (repr(thing), str(thing), f"{thing}", repr([thing]), repr({"k": thing})):
            assert not shows(text, [secret, AgreementKey(secret, "test")._value])
    assert repr(Secret(secret)) == "Secret(redacted)"
    assert identity(1).public.hex() in repr(identity(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Secret(b"x" * 32),
        lambda: Identity.from_seed(b"x" * 32),
        lambda: AgreementKey(b"x" * 32, "test"),
        lambda: HybridKey(b"x" * 32, "test"),
        lambda: ClientSecrets.generate(os.urandom),
        lambda: recorded_run("masking")[0].clients[1],
    ],
)
def test_secrets_are_never_pickled(make: Callable[[], object]) -> None:
    with pytest.raises((KeyRefused, pickle.PicklingError, AttributeError, TypeError)):
        pickle.dumps(make())


def test_exceptions_do_not_show_secrets() -> None:
    """Every refusal and abort that a run of lies provokes, with its whole traceback text."""
    caught: list[CryptoError] = []
    secrets: list[bytes] = []
    for step in range(5):
        for damage in (
            lambda payload: payload[:-1] + bytes([payload[-1] ^ 1]),
            lambda payload: payload[:-1],
            lambda payload: payload + payload,
            lambda payload: b"",
        ):
            run, recorder = recorded_run("masking")

            def forge(
                at: int, who: int, answer: bytes, step: int = step, damage: object = damage
            ) -> bytes:
                if at != step or who > 3:
                    return answer
                return resign(answer, damage(payload_of(answer)))

            try:
                run.drive(forge=forge)
            except CryptoError as error:
                caught.append(error)
            caught.extend(run.refused)
            secrets.extend(recorder.given)
    assert len(caught) > 20
    for error in caught:
        for text in (str(error), repr(error), "".join(traceback.format_exception(error))):
            assert not shows(text, secrets)
            assert str(MARK // 100) not in text


def test_seats_show_and_pickle_nothing() -> None:
    """Not even of a source of randomness or of vectors whose own repr would tell."""
    vector = np.full(5, MARK, dtype=np.int64)
    told = partial(vector.__mul__, vector)
    for taken in (seat(3, partial(bytes, MARK)), client_seat(3, told, partial(bytes, MARK))):
        assert repr(taken) == f"{type(taken).__name__}(index=3)"
        with pytest.raises(KeyRefused, match="never pickled"):
            pickle.dumps(taken)


def test_refused_randomness_and_keys_do_not_show() -> None:
    secret = b"0123456789abcdef0123456789abcde"
    for call in (lambda: Identity.from_seed(secret), lambda: Identity.generate(lambda n: secret)):
        with pytest.raises(KeyRefused) as caught:
            call()
        assert not shows(repr(caught.value), [secret])


def test_seeds_and_shares_do_not_travel_in_clear_before_unmasking() -> None:
    """Every message before the last step, to and from everybody, holds none of the secrets."""
    recorder = Recorder()
    terms = make_terms(4)
    run = Run("masking", terms, make_vectors(terms))
    for k in terms.cohort:
        run.clients[k] = run.client(k, recorder)
    run.drive()
    sent = b"".join(m for round_ in [*run.requests[:4], *run.answers[:4]] for m in round_.values())
    for secret in recorder.given:
        for at in range(0, len(secret) - 7, 8):
            assert secret[at : at + 8] not in sent
    opened = b"".join(run.answers[4].values())
    assert not any(secret in opened for secret in recorder.given)


def test_dealing_is_fresh_for_every_call() -> None:
    """A refused list of adverts followed by a good one never reuses a polynomial."""
    recorder = Recorder()
    terms = make_terms(3)
    run = Run("masking", terms, make_vectors(terms))
    run.clients[1] = run.client(1, recorder)
    out = run.aggregator.begin()
    for k, request in out.messages.items():
        run.aggregator.receive(k, run.clients[k].step(request))
    request = run.aggregator.advance().messages[1]
    adverts = shown(request)
    with pytest.raises(CryptoError):
        run.clients[1].step(resign(request, show(1, {2: adverts[2]})))
    run.clients[1].step(request)
    assert len(recorder.given) == len(set(recorder.given)) == 5
    assert seeded(1)(8) == seeded(1)(8)
