"""The aggregator's side of the threshold sum: it carries, adds, asks sets of members, compares.

It holds no secret. A member that falls silent is left out of what follows, while t are left; every
step of making the key can go on without those that did not answer it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crypto.attempt import AggregatorAttempt, Reader
from crypto.codec import Reader as StateReader
from crypto.codec import Writer
from crypto.envelope import EVERYBODY, Heading, Step, payload_of, unseal
from crypto.errors import Malformed, MessageRefused, OutOfOrder
from crypto.he_messages import OpenRequest, decode_ciphertexts
from crypto.he_uploads import add_into
from crypto.he_words import pack_polynomials, unpack_polynomials
from crypto.inbox import Inbox
from crypto.keys import Identity
from crypto.machines import Done, Outgoing, Ready
from crypto.terms import Terms
from crypto.threshold_checks import check_checks, checked_part
from crypto.threshold_contexts import (
    context_of_check,
    context_of_dealing,
    context_of_key,
    context_under,
    digest_of_key,
    digest_of_share,
    digest_of_sum,
)
from crypto.threshold_key import summed
from crypto.threshold_messages import (
    Check,
    Commitment,
    Dealing,
    Endorsement,
    Held,
    Set,
    decode_answers,
    decode_key,
    decode_part,
    decode_sets,
    decode_sized_and_bundle,
    decode_sized_and_sized,
    encode_bundle_and_sets,
    encode_key,
    encode_pair,
    encode_sets,
    encode_sized_and_bundle,
    sealed_share_size,
)
from crypto.threshold_opening import Opener, key_fits
from crypto.threshold_parameters import choose
from crypto.threshold_sets import comparing, covering, in_all, opening

Words = NDArray[np.uint64]


class ThresholdAggregator(AggregatorAttempt):
    """The aggregator in one attempt; see SumAggregator.

    It keeps the uploads until the members have them: they are signed for all of them.
    """

    kind = "threshold aggregator"

    def __init__(self, terms: Terms, identity: Identity) -> None:
        super().__init__(terms, identity)
        self._parameters = choose(terms)
        self._scheme = self._parameters.scheme
        self._commitments: dict[int, bytes] = {}
        self._dealings: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, bytes]] = {}
        self._checks: dict[int, bytes] = {}
        self._endorsements: dict[int, bytes] = {}
        self._key = b""
        self._members: tuple[int, ...] = ()
        self._uploads: dict[int, bytes] = {}
        self._total: Words | None = None
        self._intent = b""
        self._sets: tuple[Set, ...] = ()
        self._asked: dict[int, int] = {}
        self._answers: dict[int, bytes] = {}
        self._complete: tuple[Set, ...] = ()
        self._found: NDArray[np.int64] | None = None

    def begin(self) -> Outgoing:
        """Ask the officers for commitments."""
        officers = self._terms.roster.officer_indices
        self._begin(Step.THRESHOLD_COMMIT, officers)
        return self._outgoing(Step.THRESHOLD_COMMIT, dict.fromkeys(officers, b""))

    def advance(self) -> Outgoing | Ready | Done:
        """Close the step with what has arrived; see SumAggregator.advance."""
        inbox = self._step_to_close()
        answered = inbox.close()
        if inbox.step is Step.THRESHOLD_INPUT:
            if len(answered) < self._terms.quorum:
                needed = self._terms.quorum
                raise self._abort(inbox.step, f"{len(answered)} clients answered, {needed} needed")
            ready = self._is_ready(inbox, answered)
            return replace(
                ready,
                dropped={k: v for k, v in ready.dropped.items() if k in self._terms.cohort},
                rejected={k: v for k, v in ready.rejected.items() if k in self._terms.cohort},
            )
        if inbox.step is not Step.THRESHOLD_PART:
            self._enough(inbox, answered)
        return {
            Step.THRESHOLD_COMMIT: self._ask_to_deal,
            Step.THRESHOLD_DEAL: self._ask_to_check,
            Step.THRESHOLD_CHECK: self._ask_to_sign,
            Step.THRESHOLD_SIGN: self._after_signing,
            Step.THRESHOLD_OPEN: self._ask_to_open,
            Step.THRESHOLD_PART: self._after_parts,
        }[inbox.step](inbox, answered)

    def authorise(self, intent: bytes, evidence: bytes) -> Outgoing:
        """Hand every survivor's upload to the members; see SumAggregator.authorise."""
        self._take_intent(intent)
        self._intent = intent
        uploads = [self._uploads[k] for k in self._survivors]
        request = OpenRequest(intent, evidence, uploads).encode()
        self._uploads = {}
        self._open_inbox().open(Step.THRESHOLD_OPEN, self._members)
        return self._outgoing(Step.THRESHOLD_OPEN, dict.fromkeys(self._members, request))

    # --- the key --------------------------------------------------------------------------------

    def _ask_to_deal(self, inbox: Inbox, answered: tuple[int, ...]) -> Outgoing:
        inbox.open(Step.THRESHOLD_DEAL, answered)
        request = Writer().bundle(self._commitments).done()
        context = context_of_key(self._terms)
        requests = dict.fromkeys(answered, request)
        out = self._outgoing(Step.THRESHOLD_DEAL, requests, context=context)
        self._context = context_of_dealing(self._terms, self._payloads(self._commitments))
        return out

    def _ask_to_check(self, inbox: Inbox, answered: tuple[int, ...]) -> Outgoing:
        inbox.open(Step.THRESHOLD_CHECK, answered)
        requests = {
            k: encode_pair(
                self._dealings, {d: self._shares[d][k] for d in self._dealings if d != k}
            )
            for k in answered
        }
        self._shares = {}
        out = self._outgoing(Step.THRESHOLD_CHECK, requests)
        dealings = self._payloads(self._dealings)
        parts = [Dealing.decode(dealing).part for dealing in dealings.values()]
        total = summed((decode_part(p, self._scheme) for p in parts), self._scheme.key_primes)
        self._key = encode_key(self._parameters, total)
        self._context = context_of_check(self._context, dealings)
        return out

    def _ask_to_sign(self, inbox: Inbox, answered: tuple[int, ...]) -> Outgoing:
        dealers = tuple(sorted(self._dealings))
        checks = {
            k: Check.decode(payload, dealers, self._scheme.data_primes)
            for k, payload in self._payloads(self._checks).items()
        }
        try:
            check_checks(self._terms.roster, self._parameters, checks, dealers)
        except MessageRefused as refusal:
            raise self._abort(
                inbox.step, f"dealing of member {refusal.sender}: {refusal.reason}"
            ) from None
        return self._signing(inbox, answered)

    def _signing(self, inbox: Inbox, members: tuple[int, ...]) -> Outgoing:
        inbox.open(Step.THRESHOLD_SIGN, members)
        self._members = members
        self._endorsements, self._answers = {}, {}
        self._sets = covering(members, self._parameters.threshold)
        checks = {k: self._checks[k] for k in members}
        requests = {k: encode_bundle_and_sets(checks, self._sets_of(k)) for k in members}
        return self._outgoing(Step.THRESHOLD_SIGN, requests)

    def _after_signing(self, inbox: Inbox, answered: tuple[int, ...]) -> Outgoing:
        if answered != self._members:
            return self._signing(inbox, answered)
        public = decode_key(self._key, self._parameters)
        for members in self._sets:
            if not key_fits(self._parameters, public, [w[0] for w in self._parts_of(members, 1)]):
                raise self._abort(
                    inbox.step,
                    f"the shares of the members {members} are not of the key that they signed; one"
                    " of them, or of those that dealt, deviates",
                )
        inbox.open(Step.THRESHOLD_INPUT, self._terms.cohort)
        self._answers = {}
        request = encode_sized_and_bundle(self._key, self._endorsements)
        requests = dict.fromkeys(self._terms.cohort, request)
        # Clients learn the key only from this message, so that it is signed under ctx1.
        out = self._outgoing(Step.THRESHOLD_INPUT, requests, context=self._terms.ctx1)
        self._context = context_under(self._terms, self._key)
        return out

    # --- the sum --------------------------------------------------------------------------------

    def _ask_to_open(self, inbox: Inbox, answered: tuple[int, ...]) -> Outgoing:
        self._members = answered
        return self._asking(inbox, (opening(answered, self._parameters.threshold, self._asked),))

    def _asking(self, inbox: Inbox, sets: tuple[Set, ...]) -> Outgoing:
        self._sets, self._answers = sets, {}
        due = sorted({k for members in sets for k in members})
        for k in due:
            self._asked[k] = self._asked.get(k, 0) + len(self._sets_of(k))
        inbox.open(Step.THRESHOLD_PART, due)
        requests = {k: encode_sets(self._sets_of(k)) for k in due}
        return self._outgoing(Step.THRESHOLD_PART, requests)

    def _after_parts(self, inbox: Inbox, answered: tuple[int, ...]) -> Outgoing | Done:
        lost = {k for members in self._sets for k in members} - set(answered)
        self._members = tuple(k for k in self._members if k not in lost)
        for members in self._sets:
            if not lost & set(members):
                self._take_result(inbox, members)
        threshold, limit = self._parameters.threshold, self._parameters.answers
        if not self._complete:
            self._enough(inbox, self._members)
            return self._asking(inbox, (opening(self._members, threshold, self._asked),))
        further = comparing(self._members, threshold, self._asked, limit, self._complete)
        if further:
            return self._asking(inbox, further)
        if self._found is None:
            raise OutOfOrder("nothing was opened")
        self._over = True
        return Done(self._found, self._survivors, tuple(sorted(in_all(self._complete))))

    def _take_result(self, inbox: Inbox, members: Set) -> None:
        """Open the sum with the answers of one more set, which must be what the others gave."""
        if self._total is None:
            raise OutOfOrder("there is no sum")
        answers = self._parts_of(members, self._scheme.ciphertexts)
        try:
            found = Opener(self._parameters).open(self._total, answers, self._terms.length)
        except Malformed as error:
            raise self._abort(inbox.step, f"answers of the members {members}: {error}") from None
        if self._found is None:
            self._found = found
        elif not np.array_equal(found, self._found):
            raise self._abort(
                inbox.step,
                f"the committee disagrees: the members {members} open another sum than"
                f" {self._complete[0]}; one of them that is not in both sets deviates",
            )
        self._complete = (*self._complete, members)

    # --- reading --------------------------------------------------------------------------------

    def _reader(self, step: Step) -> Reader:
        return {
            Step.THRESHOLD_COMMIT: self._read_commitment,
            Step.THRESHOLD_DEAL: self._read_dealing,
            Step.THRESHOLD_CHECK: self._read_check,
            Step.THRESHOLD_SIGN: self._read_endorsement,
            Step.THRESHOLD_INPUT: self._read_input,
            Step.THRESHOLD_OPEN: self._read_held,
            Step.THRESHOLD_PART: self._read_part,
        }[step]

    def _read_commitment(self, sender: int, message: bytes) -> None:
        context = context_of_key(self._terms)
        heading = Heading(Step.THRESHOLD_COMMIT, sender, EVERYBODY, context)
        Commitment.decode(unseal(message, heading, self._terms.roster))
        self._commitments[sender] = bytes(message)

    def _read_dealing(self, sender: int, message: bytes) -> None:
        public, shares = decode_sized_and_bundle(self._unseal(Step.THRESHOLD_DEAL, sender, message))
        dealing = Dealing.decode(
            self._unseal(Step.THRESHOLD_DEALING, sender, public, recipient=EVERYBODY)
        )
        commitments = self._payloads(self._commitments)
        checked_part(self._terms, self._parameters, commitments, sender, dealing)
        if {k: digest_of_share(share) for k, share in shares.items()} != dealing.digests:
            raise Malformed("the shares are not those that the dealing tells of")
        # It could not open, and its recipient's complaint would end the attempt for everybody.
        size = sealed_share_size(self._scheme)
        if any(len(share) != size for share in shares.values()):
            raise Malformed(f"a sealed share does not have {size} bytes")
        self._dealings[sender], self._shares[sender] = public, shares

    def _read_check(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.THRESHOLD_CHECK, sender, message, recipient=EVERYBODY)
        Check.decode(payload, tuple(sorted(self._dealings)), self._scheme.data_primes)
        self._checks[sender] = bytes(message)

    def _read_endorsement(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.THRESHOLD_SIGN, sender, message)
        endorsed, answers = decode_sized_and_sized(payload)
        heading = Heading(Step.THRESHOLD_KEY, sender, EVERYBODY, context_of_key(self._terms))
        found = Endorsement.decode(unseal(endorsed, heading, self._terms.roster))
        wanted = Endorsement(digest_of_key(self._key), tuple(sorted(self._dealings)), self._members)
        if found != wanted:
            raise Malformed("another key was signed, or with other members")
        decode_answers(answers, len(self._sets_of(sender)), 1, self._scheme)
        self._endorsements[sender], self._answers[sender] = endorsed, bytes(answers)

    def _read_input(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.THRESHOLD_INPUT, sender, message, recipient=EVERYBODY)
        words = decode_ciphertexts(payload, self._scheme)
        self._total = words if self._total is None else add_into(self._total, words, self._scheme)
        self._uploads[sender] = bytes(message)

    def _read_held(self, sender: int, message: bytes) -> None:
        held = Held.decode(self._unseal(Step.THRESHOLD_OPEN, sender, message))
        if self._total is None:
            raise OutOfOrder("there is no sum")
        if held != Held(self._intent, self._survivors, digest_of_sum(self._total)):
            raise Malformed("the member holds another sum")

    def _read_part(self, sender: int, message: bytes) -> None:
        payload = self._unseal(Step.THRESHOLD_PART, sender, message)
        decode_answers(payload, len(self._sets_of(sender)), self._scheme.ciphertexts, self._scheme)
        self._answers[sender] = bytes(payload)

    # --- the rest -------------------------------------------------------------------------------

    def _enough(self, inbox: Inbox, members: tuple[int, ...]) -> None:
        needed = self._parameters.threshold
        if len(members) < needed:
            told = [f"{k}: {reason}" for k, reason in sorted(inbox.rejected.items())]
            refused = f" (refused: {'; '.join(told)})" if told else ""
            raise self._abort(
                inbox.step,
                f"{len(members)} members of the committee are left, {needed} needed{refused}",
            )

    def _payloads(self, messages: Mapping[int, bytes]) -> dict[int, bytes]:
        """Payloads of messages whose signatures were checked when they came."""
        return {k: payload_of(messages[k]) for k in sorted(messages)}

    def _sets_of(self, member: int) -> tuple[Set, ...]:
        return tuple(members for members in self._sets if member in members)

    def _parts_of(self, members: Set, count: int) -> list[Words]:
        """The answers of these members in this set, which is one of those asked for."""
        found = []
        for k in members:
            own = self._sets_of(k)
            answers = decode_answers(self._answers[k], len(own), count, self._scheme)
            found.append(answers[own.index(members)])
        return found

    def _write(self, writer: Writer) -> None:
        primes = self._scheme.data_primes
        writer.sized(self._context).sized(self._key).sized(self._intent)
        writer.bundle(self._commitments).bundle(self._dealings)
        writer.bundle({k: Writer().bundle(v).done() for k, v in self._shares.items()})
        writer.bundle(self._checks).bundle(self._endorsements).bundle(self._uploads)
        writer.bundle(self._answers).indices(self._members)
        writer.flag(self._total is not None)
        if self._total is not None:
            writer.sized(pack_polynomials(self._total, primes))
        for sets in (self._sets, self._complete):
            writer.sized(encode_sets(sets))
        writer.bundle({k: Writer().u32(count).done() for k, count in self._asked.items()})
        writer.flag(self._found is not None)
        if self._found is not None:
            writer.sized(self._terms.ring.pack(self._terms.ring.encode(self._found)))

    def _read(self, reader: StateReader) -> None:
        scheme, ring = self._scheme, self._terms.ring
        self._context, self._key, self._intent = reader.sized(), reader.sized(), reader.sized()
        self._commitments, self._dealings = reader.bundle(), reader.bundle()
        self._shares = {k: StateReader(v).bundle() for k, v in reader.bundle().items()}
        self._checks, self._endorsements = reader.bundle(), reader.bundle()
        self._uploads, self._answers = reader.bundle(), reader.bundle()
        self._members = reader.indices()
        if reader.flag():
            self._total = unpack_polynomials(
                reader.sized_view(), (scheme.ciphertexts, 2), scheme.data_primes, scheme.degree
            )
        self._sets, self._complete = decode_sets(reader.sized()), decode_sets(reader.sized())
        self._asked = {k: StateReader(v).u32() for k, v in reader.bundle().items()}
        if reader.flag():
            self._found = ring.decode(ring.unpack(reader.sized_view(), self._terms.length))

    def _forget(self) -> None:
        self._uploads, self._answers, self._shares = {}, {}, {}
        self._total = None
