"""Vectors of double masking: a whole attempt, byte for byte, and messages that must be refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from crypto.envelope import Heading, Step, seal
from crypto.masking_messages import (
    Neighbourhood,
    Opening,
    OpeningRequest,
    decode_bundle,
    decode_delivery,
    decode_unmask_answer,
    encode_bundle,
    encode_delivery,
    encode_unmask_answer,
)
from crypto.secure_sum import SECURE_SUMS, ClientSeat, Done, Outgoing, Ready, SumClient
from tests.vectors.encapsulations import Encapsulations
from tests.vectors.format import Case, Format, bad
from tests.vectors.messages import IDENTITIES, SEEDS, terms_fields, terms_of
from tests.vectors.primitives import stream

unhex = bytes.fromhex
ADVERTISE, SHARE, MASKED, CONSISTENCY, UNMASK = range(5)
EVIDENCE = b"the intent, where it was logged"
INTENT = hashlib.sha256(EVIDENCE).digest()
VECTORS = {1: [1, -2, 3, 0, 5], 2: [-9, 8, -7, 6, 0], 3: [1000, 0, 1, -1, 2], 4: [7, 7, 7, 7, 7]}
Messages = dict[int, bytes]


class Attempt:
    """Four clients, of which the silent ones give no answer from some step on.

    Attributes:
        requests: what the aggregator sent, by step and client.
        answers: what clients answered, by step and client.
        drawn: what each client drew, in order.
    """

    def __init__(self, silent: dict[int, int]) -> None:
        fields = terms_fields()
        self.terms = terms_of(fields)
        self.silent = silent
        self.requests: list[Messages] = []
        self.answers: list[Messages] = []
        self.drawn: dict[int, list[str]] = {}
        protocol = SECURE_SUMS["masking"]
        self.aggregator = protocol.aggregator(self.terms, IDENTITIES[0])
        self.clients = {k: self._client(k) for k in self.terms.cohort}

    def _client(self, index: int) -> SumClient:
        drawn = self.drawn.setdefault(index, [])

        def rand(length: int) -> bytes:
            taken = stream(f"client {index}, draw {len(drawn)}", length)
            drawn.append(taken.hex())
            return taken

        seat = ClientSeat(
            index=index,
            identity=IDENTITIES[index],
            rand=rand,
            intent_check=lambda evidence, survivors: hashlib.sha256(evidence).digest(),
            vector=lambda: np.array(VECTORS[index], dtype=np.int64),
        )
        return SECURE_SUMS["masking"].client(self.terms, seat)

    def drive(self, until: int = 5) -> Done | None:
        """Run to the end, or up to the requests of a step."""
        with Encapsulations().injected():
            out: Outgoing | Ready | Done = self.aggregator.begin()
            while not isinstance(out, Done):
                if isinstance(out, Ready):
                    out = self.aggregator.authorise(INTENT, EVIDENCE)
                step = len(self.requests)
                self.requests.append(dict(out.messages))
                self.answers.append({})
                if step == until:
                    return None
                for k, request in out.messages.items():
                    if self.silent.get(k, step + 1) > step:
                        self.answers[step][k] = self.clients[k].step(request)
                        self.aggregator.receive(k, self.answers[step][k])
                out = self.aggregator.advance()
            return out


def _hex(messages: list[Messages]) -> list[dict[str, str]]:
    return [{str(k): m.hex() for k, m in sent.items()} for sent in messages]


def _recorded(name: str, silent: dict[int, int]) -> Case:
    attempt = Attempt(silent)
    done = attempt.drive()
    assert done is not None
    return {
        "name": name,
        **terms_fields(),
        "seeds": {str(k): seed.hex() for k, seed in SEEDS.items()},
        "intent": INTENT.hex(),
        "evidence": EVIDENCE.hex(),
        "silent": {str(k): step for k, step in silent.items()},
        "drawn": {str(k): parts for k, parts in attempt.drawn.items()},
        "vectors": {str(k): vector for k, vector in VECTORS.items()},
        "requests": _hex(attempt.requests),
        "answers": _hex(attempt.answers),
        "survivors": list(done.contributors),
        "sum": done.total.tolist(),
    }


def _good() -> list[Case]:
    return [
        _recorded("the lowest client drops out before its input", {1: MASKED}),
        _recorded("the highest client drops out before its shares", {4: SHARE}),
    ]


def _check(case: Case) -> None:
    again = _recorded(case["name"], {int(k): step for k, step in case["silent"].items()})
    assert again == case
    total = np.sum([case["vectors"][str(k)] for k in case["survivors"]], axis=0)
    assert total.tolist() == case["sum"]


# --- what must be refused -------------------------------------------------------------------------


def _payload(message: bytes) -> bytes:
    return message[46:-64]


def _resigned(message: bytes, payload: bytes, context: bytes | None = None) -> bytes:
    """The same message with another payload, signed by its sender."""
    sender, recipient = (int.from_bytes(message[at : at + 4], "little") for at in (2, 6))
    heading = Heading(Step(message[1]), sender, recipient, context or message[10:42])
    return seal(IDENTITIES[sender], heading, payload)


def _bad() -> list[Case]:
    cases: list[Case] = []

    def to_client(
        name: str, bug: str, reason: str, step: int, forge: Callable[[Attempt, bytes], bytes]
    ) -> None:
        attempt = Attempt({1: MASKED})
        attempt.drive(until=step)
        message = forge(attempt, attempt.requests[step][2])
        where = {"step": step, "to": "client", "party": 2, "message": message.hex()}
        cases.append(bad(name, bug, "MessageRefused", reason, **where))

    def to_aggregator(
        name: str, bug: str, reason: str, step: int, forge: Callable[[Attempt, bytes], bytes]
    ) -> None:
        attempt = Attempt({1: MASKED})
        attempt.drive(until=step)
        whole = Attempt({1: MASKED})
        whole.drive()
        message = forge(attempt, whole.answers[step][2])
        where = {"step": step, "to": "aggregator", "party": 2, "message": message.hex()}
        cases.append(bad(name, bug, "MessageRefused", reason, **where))

    def opening(survivors: tuple[int, ...], dropped: tuple[int, ...]) -> Any:
        request = OpeningRequest(Opening(INTENT, survivors, dropped), EVIDENCE).encode()
        return lambda _, message: _resigned(message, request)

    def swap_advert(_: Attempt, message: bytes) -> bytes:
        told = Neighbourhood.decode(_payload(message))
        adverts = told.adverts
        swapped = adverts[3][:46] + _payload(adverts[4]) + adverts[3][-64:]
        changed = replace(told, adverts={**adverts, 3: swapped})
        return _resigned(message, changed.encode())

    def withhold(_: Attempt, message: bytes) -> bytes:
        members, dealings = decode_delivery(_payload(message))
        return _resigned(message, encode_delivery(members, {1: dealings[1], 3: dealings[3]}))

    def exchange(_: Attempt, message: bytes) -> bytes:
        members, dealings = decode_delivery(_payload(message))
        moved = {**dealings, 3: dealings[4], 4: dealings[3]}
        return _resigned(message, encode_delivery(members, moved))

    def few_signatures(_: Attempt, message: bytes) -> bytes:
        shown = decode_bundle(_payload(message))
        return _resigned(message, encode_bundle({2: shown[2], 3: shown[3]}))

    def other_opening(_: Attempt, message: bytes) -> bytes:
        asked = Opening(INTENT, (2, 3, 4), (1,))
        kinds = asked.asked_of((1, 2, 3, 4))
        shares = decode_unmask_answer(_payload(message), asked, kinds)
        other = Opening(bytes(32), asked.survivors, asked.dropped)
        return _resigned(message, encode_unmask_answer(other, kinds, shares))

    def replayed(attempt: Attempt, _: bytes) -> bytes:
        return attempt.requests[SHARE][2]

    def unsigned(_: Attempt, message: bytes) -> bytes:
        return message[:-1] + bytes([message[-1] ^ 1])

    to_client("adverts a second time", "Replay", "another step", MASKED, replayed)
    to_client("a bit of the signature", "Unsigned", "does not verify", MASKED, unsigned)
    to_client("keys of another client", "KeySwap", "does not verify", SHARE, swap_advert)
    to_client("shares are withheld", "Withheld", "missing", MASKED, withhold)
    to_client("shares are exchanged", "Exchanged", "do not open", MASKED, exchange)
    to_client(
        "both shares of client 4",
        "BothShares",
        "both shares",
        CONSISTENCY,
        opening((2, 3, 4), (1, 4)),
    )
    to_client("a member is in no list", "SplitView", "not U2", CONSISTENCY, opening((2, 3, 4), ()))
    to_client(
        "too few survivors", "FewSurvivors", "3 or more", CONSISTENCY, opening((2, 3), (1, 4))
    )
    to_client(
        "listed as dropped itself",
        "SplitView",
        "not among the survivors",
        CONSISTENCY,
        opening((1, 3, 4), (2,)),
    )
    to_client("signatures of two", "FewSignatures", "3 or more", UNMASK, few_signatures)
    to_aggregator("shares for another opening", "Replay", "another request", UNMASK, other_opening)
    to_aggregator(
        "a bit of the signature of an input", "Unsigned", "does not verify", MASKED, unsigned
    )
    return cases


def _refuse(case: Case) -> None:
    attempt = Attempt({1: MASKED})
    attempt.drive(until=case["step"])
    message = unhex(case["message"])
    with Encapsulations().injected():
        if case["to"] == "client":
            attempt.clients[case["party"]].step(message)
        else:
            attempt.aggregator.receive(case["party"], message)


MASKING = Format(
    name="masking",
    about=(
        "Attempts of four clients. requests[k] and answers[k] are the messages of step k"
        " (advertise, share, masked input, consistency, unmask) by client, as envelopes; their"
        " payloads are"
        " described in crypto.masking_messages. drawn is what each client drew, in order: mask"
        " secret, self-mask seed, channel secret, then Shamir coefficients of the first two."
        " Encapsulations are in encapsulations.json, by the first 32 hex digits of SHA-256 of the"
        " encapsulation key and how often it was used before. Bad messages come in the attempt in"
        " which client 1 drops out, in the place of the right one."
    ),
    bugs={
        "Replay": "A party acts twice on one thing, or on an old one.",
        "Unsigned": "Whoever carries messages can change them.",
        "KeySwap": "The aggregator reads what clients deal each other.",
        "Withheld": "Masks cover other clients than the sum: one vector can be singled out.",
        "Exchanged": "A share counts as another's.",
        "BothShares": "Mask and self-mask of one client are known: its vector is.",
        "SplitView": "Clients open different sums, and their answers add up to one vector.",
        "FewSurvivors": "The sum of few is nearly one vector.",
        "FewSignatures": "Clients open what others were told differently.",
    },
    good=_good,
    bad=_bad,
    check=_check,
    refuse=_refuse,
)

FORMATS = (MASKING,)
