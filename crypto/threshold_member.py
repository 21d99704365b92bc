"""A member of the committee in one attempt: it makes a part of the key, and answers for one sum.

What it answers for is fixed once: the ciphertexts of distinct clients, signed by them, at least
min_survivors, with evidence of the logged intent; it adds them itself, and refuses another set.
Every answer carries fresh smudging and is kept, under the set of members that it was given for,
before it is handed over: the same question gets the same bytes again. Its pad makes an answer worth
nothing without those of its set; what a set opens is what the smudging hides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from crypto.codec import Reader, Writer
from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, refusing, seal, unseal
from crypto.errors import Malformed, OutOfOrder
from crypto.he_messages import OpenRequest
from crypto.he_uploads import senders_of, sum_of
from crypto.he_words import pack_polynomials, unpack_polynomials
from crypto.machines import Seat, check_intent
from crypto.party import PartyAttempt
from crypto.terms import Terms
from crypto.threshold_checks import point_of
from crypto.threshold_contexts import (
    context_of_key,
    context_of_pads,
    context_under,
    digest_of_sum,
)
from crypto.threshold_key import common_polynomial
from crypto.threshold_keygen import Checked, Committed, Dealt, KeyMaker, Phase
from crypto.threshold_keygen_state import read_phase, write_phase
from crypto.threshold_messages import (
    Held,
    Set,
    decode_bundle_and_sets,
    decode_sets,
    encode_answer,
    encode_sized_and_sized,
)
from crypto.threshold_pads import pad_of
from crypto.threshold_parameters import choose

Words = NDArray[np.uint64]


class Answers:
    """What a member has answered, by the set of members it was for: each set once, a few in all.

    Args:
        limit: how many sets may ever be answered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[Set, bytes] = {}

    def give(self, sets: Sequence[Set], make: Callable[[Set], bytes]) -> bytes:
        """The answers for these sets in order; those that are not kept yet are made and kept.

        Raises:
            Malformed: there would be more than the limit; nothing was made.
        """
        fresh = [members for members in sets if members not in self._kept]
        if len(self._kept) + len(fresh) > self._limit:
            raise Malformed(
                f"answers for {len(self._kept) + len(fresh)} sets of members; allowed:"
                f" {self._limit}, which is what the smudging hides"
            )
        for members in fresh:
            self._kept[members] = make(members)
        return b"".join(self._kept[members] for members in sets)

    def write(self, writer: Writer) -> None:
        """Append everything to a saved state."""
        writer.u32(len(self._kept))
        for members, answer in self._kept.items():
            writer.indices(members).sized(answer)

    def read(self, reader: Reader) -> None:
        """Inverse of write."""
        for _ in range(reader.u32()):
            members = reader.indices()
            self._kept[members] = reader.sized()


class ThresholdMember(PartyAttempt[Seat]):
    """One member in one attempt; see SumOfficer."""

    kind = "threshold member"

    def __init__(self, terms: Terms, seat: Seat) -> None:
        super().__init__(terms, seat)
        self._parameters = choose(terms)
        self._maker = KeyMaker(terms, seat, self._parameters)
        self._phase: Phase | None = None
        self._dealing = b""
        self._tests = Answers(2 * self._parameters.answers)
        self._parts = Answers(self._parameters.answers)
        self._signed = False
        self._held: Held | None = None
        self._seconds: Words | None = None

    def __repr__(self) -> str:
        due = [step.label for step in self._due()]
        return f"ThresholdMember(index={self._index}, due={due}, redacted)"

    def step(self, message: bytes) -> bytes:
        """Answer the aggregator's message; see SumParty.step."""
        due = self._due()
        step = next((s for s in due if message[1:2] == bytes([s])), due[0])
        heading = Heading(step, AGGREGATOR, self._index, self._context_of(step))
        payload = unseal(message, heading, self._terms.roster)
        with refusing(AGGREGATOR, step):
            return {
                Step.THRESHOLD_COMMIT: self._commit,
                Step.THRESHOLD_DEAL: self._deal,
                Step.THRESHOLD_CHECK: self._check,
                Step.THRESHOLD_SIGN: self._sign,
                Step.THRESHOLD_OPEN: self._open,
                Step.THRESHOLD_PART: self._part,
            }[step](payload)

    def _write(self, writer: Writer) -> None:
        write_phase(writer, self._phase, self._parameters)
        writer.sized(self._dealing).flag(self._signed)
        self._tests.write(writer)
        self._parts.write(writer)
        writer.flag(self._held is not None)
        if self._held is not None and self._seconds is not None:
            scheme = self._parameters.scheme
            writer.sized(self._held.encode())
            writer.sized(pack_polynomials(self._seconds, scheme.data_primes))

    def _read(self, reader: Reader) -> None:
        scheme, point = self._parameters.scheme, point_of(self._terms.roster, self._index)
        self._phase = read_phase(reader, self._parameters, point)
        self._dealing, self._signed = reader.sized(), reader.flag()
        self._tests.read(reader)
        self._parts.read(reader)
        if reader.flag():
            self._held = Held.decode(reader.sized())
            self._seconds = unpack_polynomials(
                reader.sized_view(), (scheme.ciphertexts,), scheme.data_primes, scheme.degree
            )

    def _due(self) -> tuple[Step, ...]:
        if self._phase is None:
            return (Step.THRESHOLD_COMMIT,)
        if isinstance(self._phase, Committed):
            return (Step.THRESHOLD_DEAL,)
        if isinstance(self._phase, Dealt):
            return (Step.THRESHOLD_CHECK,)
        if not self._signed:
            return (Step.THRESHOLD_SIGN,)
        if self._held is None:
            return (Step.THRESHOLD_OPEN, Step.THRESHOLD_SIGN)
        return (Step.THRESHOLD_PART, Step.THRESHOLD_OPEN)

    def _context_of(self, step: Step) -> bytes:
        if self._phase is None:
            return self._terms.ctx1
        if isinstance(self._phase, Committed):
            return context_of_key(self._terms)
        if isinstance(self._phase, Dealt):
            return self._dealing
        if step is Step.THRESHOLD_SIGN:
            return self._phase.context
        return context_under(self._terms, self._phase.key)

    def _commit(self, payload: memoryview) -> bytes:
        answer, self._phase = self._maker.commit(payload)
        return answer

    def _deal(self, payload: memoryview) -> bytes:
        if not isinstance(self._phase, Committed):
            raise OutOfOrder("nothing was committed to")
        answer, self._phase, self._dealing = self._maker.deal(payload, self._phase)
        return answer

    def _check(self, payload: memoryview) -> bytes:
        if not isinstance(self._phase, Dealt):
            raise OutOfOrder("nothing was dealt")
        answer, self._phase = self._maker.check(payload, self._phase, self._dealing)
        return answer

    def _sign(self, payload: memoryview) -> bytes:
        phase = self._checked()
        checks, sets = decode_bundle_and_sets(payload)
        self._check_sets(sets, tuple(sorted(checks)))
        endorsed = self._maker.sign(checks, phase)
        scheme = self._parameters.scheme
        a = common_polynomial(self._maker.context, scheme)[: len(scheme.data_primes)]

        def make(members: Set) -> bytes:
            pad = self._pad(phase, members, context_of_pads(phase.context, b""), 1)[0]
            answer = phase.share.answer_transformed(a, self._points(members), pad, self._rand)
            return encode_answer(answer[None], scheme)

        answers = self._tests.give(sets, make)
        self._signed = True
        context = phase.context
        heading = Heading(Step.THRESHOLD_SIGN, self._index, AGGREGATOR, context)
        return seal(self._identity, heading, encode_sized_and_sized(endorsed, answers))

    def _open(self, payload: memoryview) -> bytes:
        """Take the ciphertexts of one sum, and of no other."""
        terms, scheme = self._terms, self._parameters.scheme
        context = self._context_of(Step.THRESHOLD_OPEN)
        request = OpenRequest.decode(payload)
        senders = senders_of(terms, request.uploads)
        check_intent(self._intent_check, request.evidence, request.intent, len(senders))
        total = sum_of(
            terms,
            scheme,
            request.uploads,
            step=Step.THRESHOLD_INPUT,
            recipient=EVERYBODY,
            context=context,
        )
        held = Held(request.intent, senders, digest_of_sum(total))
        if self._held is None:
            self._held, self._seconds = held, total[:, 1].copy()
        elif held != self._held:
            raise Malformed("this member answers for other ciphertexts of this round already")
        heading = Heading(Step.THRESHOLD_OPEN, self._index, AGGREGATOR, context)
        return seal(self._identity, heading, held.encode())

    def _part(self, payload: memoryview) -> bytes:
        phase, held, seconds = self._checked(), self._held, self._seconds
        if held is None or seconds is None:
            raise OutOfOrder("there is nothing to answer for")
        sets = decode_sets(payload)
        self._check_sets(sets, phase.dealers)

        def make(members: Set) -> bytes:
            context = context_of_pads(phase.context, held.encode())
            pad = self._pad(phase, members, context, len(seconds))
            answer = phase.share.answer(seconds, self._points(members), pad, self._rand)
            return encode_answer(answer, self._parameters.scheme)

        heading = Heading(
            Step.THRESHOLD_PART,
            self._index,
            AGGREGATOR,
            self._context_of(Step.THRESHOLD_PART),
        )
        return seal(self._identity, heading, self._parts.give(sets, make))

    def _checked(self) -> Checked:
        if not isinstance(self._phase, Checked):
            raise OutOfOrder("there is no key yet")
        return self._phase

    def _check_sets(self, sets: Sequence[Set], allowed: Set) -> None:
        wanted = self._parameters.threshold
        for members in sets:
            if len(members) != wanted or not set(members) <= set(allowed):
                raise Malformed(f"set {members}; allowed: {wanted} of the members {allowed}")
            if self._index not in members:
                raise Malformed(f"set {members} does not have this member in it")

    def _pad(self, phase: Checked, members: Set, context: bytes, count: int) -> Words:
        scheme = self._parameters.scheme
        shape = (count, len(scheme.data_primes), scheme.degree)
        return pad_of(self._index, phase.pairs, members, context, shape, scheme.data_primes)

    def _points(self, members: Set) -> list[int]:
        return [point_of(self._terms.roster, k) for k in members]
