"""Steps of a key in the making, taken one by one without an aggregator, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from crypto.codec import Writer
from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, seal, unseal
from crypto.errors import Malformed, MessageRefused
from crypto.he_messages import OpenRequest
from crypto.he_uploads import senders_of
from crypto.residues import add, column
from crypto.secure_sum import SECURE_SUMS
from crypto.terms import Terms
from crypto.threshold_checks import check_checks, check_signed_key, checked_part, point_of
from crypto.threshold_contexts import (
    context_of_dealing,
    context_of_key,
    digest_of_key,
    digest_of_share,
)
from crypto.threshold_key import common_polynomial, summed
from crypto.threshold_keygen import Checked, Committed, Dealt, KeyMaker
from crypto.threshold_member import Answers, ThresholdMember
from crypto.threshold_messages import (
    Check,
    Commitment,
    Dealing,
    Endorsement,
    Set,
    decode_part,
    decode_sized_and_bundle,
    encode_key,
    encode_pair,
)
from crypto.threshold_opening import key_fits
from crypto.threshold_parameters import choose
from crypto.threshold_sharing import repeats_of
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
    terms_for,
)

TERMS = make_terms(4, officers=3, committee_threshold=2, min_survivors=3, threshold=1, length=50)
PARAMETERS = choose(TERMS)
SCHEME = PARAMETERS.scheme
PRIMES = SCHEME.data_primes
MEMBERS = (5, 6, 7)
KEY = context_of_key(TERMS)


def makers(terms: Terms = TERMS) -> dict[int, KeyMaker]:
    return {k: KeyMaker(terms, seat(k, seeded(f"maker {k}")), PARAMETERS) for k in MEMBERS}


class Making:
    """A key in the making, as far as the dealings; public so that each test can change messages."""

    def __init__(self, members: tuple[int, ...] = MEMBERS) -> None:
        self.makers = {k: maker for k, maker in makers().items() if k in members}
        made = {k: maker.commit(memoryview(b"")) for k, maker in self.makers.items()}
        self.committed: dict[int, Committed] = {k: phase for k, (_, phase) in made.items()}
        self.commitments = {k: message for k, (message, _) in made.items()}
        dealt = {
            k: maker.deal(self.bundle(self.commitments), self.committed[k])
            for k, maker in self.makers.items()
        }
        self.dealt: dict[int, Dealt] = {k: phase for k, (_, phase, _) in dealt.items()}
        (self.context,) = {context for _, _, context in dealt.values()}
        self.headings = {
            k: Heading(Step.THRESHOLD_DEAL, k, AGGREGATOR, self.context) for k in dealt
        }
        pairs = {
            k: decode_sized_and_bundle(unseal(message, self.headings[k], TERMS.roster))
            for k, (message, _, _) in dealt.items()
        }
        self.dealings = {k: public for k, (public, _) in pairs.items()}
        self.shares = {k: shares for k, (_, shares) in pairs.items()}

    @staticmethod
    def bundle(messages: Mapping[int, bytes]) -> memoryview:
        return memoryview(Writer().bundle(messages).done())

    def given(self, member: int) -> dict[int, bytes]:
        """The sealed shares for one member, by dealer."""
        return {k: shares[member] for k, shares in self.shares.items() if k != member}

    def check(
        self,
        member: int,
        dealings: Mapping[int, bytes] | None = None,
        given: Mapping[int, bytes] | None = None,
    ) -> tuple[bytes, Checked]:
        payload = encode_pair(
            self.dealings if dealings is None else dealings,
            self.given(member) if given is None else given,
        )
        return self.makers[member].check(memoryview(payload), self.dealt[member], self.context)


@pytest.fixture(scope="module")
def made() -> Making:
    return Making()


def payloads(messages: Mapping[int, bytes]) -> dict[int, bytes]:
    return {k: payload_of(message) for k, message in messages.items()}


@pytest.mark.parametrize("members", [MEMBERS, (5, 7)])
def test_members_make_a_key_of_which_each_has_a_share(members: tuple[int, ...]) -> None:
    made = Making(members)
    checked = {k: made.check(k) for k in members}
    phases = {k: phase for k, (_, phase) in checked.items()}
    checks = {k: message for k, (message, _) in checked.items()}
    parts = [
        decode_part(Dealing.decode(payload).part, SCHEME)
        for payload in payloads(made.dealings).values()
    ]
    total = summed(parts, SCHEME.key_primes)
    a = common_polynomial(KEY, SCHEME)[: len(PRIMES)]
    none = np.zeros_like(a)
    for chosen in [pair for pair in ((5, 6), (6, 7), (5, 7)) if set(pair) <= set(members)]:
        points = [k - 4 for k in chosen]
        answers = [phases[k].share.answer_transformed(a, points, none, seeded(k)) for k in chosen]
        assert key_fits(PARAMETERS, total, answers)
        one, other = chosen
        assert phases[one].pairs[other].reveal() == phases[other].pairs[one].reveal()
    for k in members:
        assert phases[k].key == encode_key(PARAMETERS, total)
        assert phases[k].dealers == members
        assert phases[k].pairs.keys() == set(members) - {k}
        signed = made.makers[k].sign(checks, phases[k])
        payload = unseal(signed, Heading(Step.THRESHOLD_KEY, k, EVERYBODY, KEY), TERMS.roster)
        expected = Endorsement(digest_of_key(phases[k].key), members, members)
        assert Endorsement.decode(payload) == expected
    assert "redacted" in repr(made.makers[5])


def test_an_invitation_is_empty() -> None:
    with pytest.raises(Malformed, match="invitation is not empty"):
        makers()[5].commit(memoryview(b"x"))


def test_a_member_deals_to_those_that_committed_itself_among_them(made: Making) -> None:
    maker, phase, shown = made.makers[5], made.committed[5], made.commitments
    for wrong, match in (
        ({k: shown[k] for k in (6, 7)}, "this one among them"),
        ({5: shown[5]}, "1 members; allowed: 2 or more"),
        ({**shown, 4: shown[6]}, "not from members of the committee"),
        ({**shown, 5: resign(shown[5], b"")}, "of this member is another one"),
        ({**shown, 5: resign(shown[5], b"\xff" * 1248)}, "of this member is another one"),
    ):
        with pytest.raises(Malformed, match=match):
            maker.deal(made.bundle(wrong), phase)
    with pytest.raises(MessageRefused):
        maker.deal(made.bundle({**shown, 6: shown[7]}), phase)
    assert context_of_dealing(TERMS, payloads(shown)) == made.context


def test_a_member_takes_the_shares_of_all_that_dealt(made: Making) -> None:
    given, shown = made.given(5), made.dealings
    two = {k: shown[k] for k in (5, 6)}
    fewer = Making((5, 6))
    for dealings, shares, match in (
        (shown, {6: given[6]}, "the shares are not those of the dealers"),
        (two, given, "the shares are not those of the dealers"),
        (shown, {**given, 5: given[6]}, "the shares are not those of the dealers"),
        ({k: shown[k] for k in (6, 7)}, given, "this one among them"),
        ({5: shown[5]}, {}, "1 members; allowed: 2 or more"),
        (shown, {**given, 6: given[7]}, "share of member 6 is not the one that it dealt"),
    ):
        with pytest.raises(Malformed, match=match):
            made.check(5, dealings, shares)
    late = resign(
        seal(identity(7), Heading(Step.THRESHOLD_DEALING, 7, EVERYBODY, fewer.context), b""),
        payload_of(shown[7]),
    )
    with pytest.raises(Malformed, match="a dealer is not among those that committed"):
        fewer.check(5, {**fewer.dealings, 7: late}, {6: fewer.given(5)[6], 7: given[7]})
    _, phase = made.check(5, two, {6: given[6]})
    assert phase.dealers == (5, 6)
    assert phase.pairs.keys() == {6}


def test_a_share_that_does_not_open_is_complained_of(made: Making) -> None:
    broken = bytes(len(made.shares[6][5]))
    decoded = Dealing.decode(payload_of(made.dealings[6]))
    digests = {**decoded.digests, 5: digest_of_share(broken)}
    dealing = resign(made.dealings[6], replace(decoded, digests=digests).encode())
    message, phase = made.check(5, {**made.dealings, 6: dealing}, {**made.given(5), 6: broken})
    assert Check.decode(payload_of(message), MEMBERS, PRIMES) == Check((6,), {})
    assert phase.pairs.keys() == {7}


def test_the_key_is_signed_when_enough_checks_of_dealers_fit(made: Making) -> None:
    checked = {k: made.check(k) for k in MEMBERS}
    checks = {k: message for k, (message, _) in checked.items()}
    phase, maker = checked[5][1], made.makers[5]
    two = {k: checks[k] for k in (5, 6)}
    payload = payload_of(maker.sign(two, phase))
    assert Endorsement.decode(memoryview(payload)).signers == (5, 6)
    with pytest.raises(Malformed, match="this one among them"):
        maker.sign({k: checks[k] for k in (6, 7)}, phase)
    with pytest.raises(Malformed, match="2 or more"):
        maker.sign({5: checks[5]}, phase)
    with pytest.raises(Malformed, match="a member that checked did not deal"):
        maker.sign(checks, replace(phase, dealers=(5, 6)))
    told = Check.decode(payload_of(checks[6]), MEMBERS, PRIMES)
    row = told.combinations[7]
    moved = ((row[0][0] ^ 1, *row[0][1:]), *row[1:])
    changed = Check((), {**told.combinations, 7: moved}).encode()
    with pytest.raises(MessageRefused, match="member 7 dealt do not fit together"):
        maker.sign({**checks, 6: resign(checks[6], changed)}, phase)
    complaint = resign(checks[6], Check((7,), {}).encode())
    with pytest.raises(MessageRefused, match="member 6 complains"):
        maker.sign({**checks, 6: complaint}, phase)


def test_what_a_member_signed_malformed_is_refused_by_its_name(made: Making) -> None:
    """Whoever passed it on."""
    checked = {k: made.check(k) for k in MEMBERS}
    phase, checks = checked[5][1], {k: message for k, (message, _) in checked.items()}
    key = phase.key
    endorsed = {k: made.makers[k].sign(checks, checked[k][1]) for k in MEMBERS}

    def broken(messages: Mapping[int, bytes]) -> dict[int, bytes]:
        return {**messages, 6: resign(messages[6], payload_of(messages[6])[:-1])}

    for call, step in (
        (
            lambda: made.makers[5].deal(made.bundle(broken(made.commitments)), made.committed[5]),
            "threshold commit",
        ),
        (lambda: made.check(5, broken(made.dealings)), "threshold dealing"),
        (lambda: made.makers[5].sign(broken(checks), phase), "threshold check"),
        (lambda: check_signed_key(TERMS, PARAMETERS, key, broken(endorsed)), "threshold key"),
    ):
        with pytest.raises(MessageRefused, match="wanted") as caught:
            call()
        assert (caught.value.sender, caught.value.step) == (6, step)


# --- what everybody checks ------------------------------------------------------------------------


def test_points_are_places_among_the_officers() -> None:
    assert [point_of(TERMS.roster, k) for k in MEMBERS] == [1, 2, 3]
    assert [point_of(make_terms(3, officers=3).roster, k) for k in (4, 5, 6)] == [1, 2, 3]


def test_a_part_is_the_one_committed_to_with_a_share_for_everybody_else(made: Making) -> None:
    commitments = payloads(made.commitments)
    dealing = Dealing.decode(payload_of(made.dealings[6]))
    part = checked_part(TERMS, PARAMETERS, commitments, 6, dealing)
    np.testing.assert_array_equal(part, decode_part(dealing.part, SCHEME))
    digests = dict(dealing.digests)
    flipped = [
        bytes([dealing.part[0] ^ bit]) + dealing.part[1:] for bit in (1 << k for k in range(8))
    ]
    for wrong, match in (
        # Digests of wrong parts are below and above the right one, but for a chance of 2^-7.
        *((replace(dealing, part=part), "not the one committed to") for part in flipped),
        (replace(dealing, digests={5: digests[5]}), "not for those that committed"),
        (replace(dealing, digests={**digests, 6: digests[5]}), "not for those that committed"),
        (replace(dealing, digests={**digests, 8: digests[5]}), "not for those that committed"),
    ):
        with pytest.raises(MessageRefused, match=match) as told:
            checked_part(TERMS, PARAMETERS, commitments, 6, wrong)
        assert told.value.sender == 6
    short = dealing.part[:-8]
    digest = Commitment.digest_of(KEY, 6, short)
    channel = Commitment.decode(commitments[6]).channel
    changed = {**commitments, 6: Commitment(digest, channel).encode()}
    with pytest.raises(MessageRefused):
        checked_part(TERMS, PARAMETERS, changed, 6, replace(dealing, part=short))


def told_by(*constants: int, at: int = -1, repeat: int = -1) -> dict[int, Check]:
    """Checks of three members for dealer 5; constants, but for one place, where they are given."""
    checks = {}
    for member, constant in zip(MEMBERS, constants, strict=False):
        rows = [[1] * repeats_of(prime) for prime in PRIMES]
        rows[at][repeat] = constant
        checks[member] = Check((), {5: tuple(tuple(row) for row in rows)})
    return checks


def test_checks_fit_where_every_word_lies_on_a_line() -> None:
    for at, prime in enumerate(PRIMES):
        for repeat in range(repeats_of(prime)):
            check_checks(TERMS.roster, PARAMETERS, told_by(3, 5, 7, at=at, repeat=repeat), (5,))
            check_checks(TERMS.roster, PARAMETERS, told_by(3, 9, at=at, repeat=repeat), (5,))
            with pytest.raises(MessageRefused, match=r"members \[5, 6, 7\] tells") as told:
                check_checks(TERMS.roster, PARAMETERS, told_by(3, 5, 8, at=at, repeat=repeat), (5,))
            assert told.value.sender == 5
    checks = {**told_by(1, 1, 1), 6: Check((7,), {})}
    with pytest.raises(MessageRefused, match="member 6 complains that its share") as told:
        check_checks(TERMS.roster, PARAMETERS, checks, (5,))
    assert told.value.sender == 7


def signed(
    key: bytes, signers: Set, dealers: Set = MEMBERS, by: Set | None = None
) -> dict[int, bytes]:
    endorsed = Endorsement(digest_of_key(key), dealers, signers).encode()
    return {
        k: seal(identity(k), Heading(Step.THRESHOLD_KEY, k, EVERYBODY, KEY), endorsed)
        for k in (signers if by is None else by)
    }


def test_a_key_is_that_of_a_qualified_committee(made: Making) -> None:
    _, phase = made.check(5)
    key = phase.key
    for signers in (MEMBERS, (5, 7)):
        found = check_signed_key(TERMS, PARAMETERS, key, signed(key, signers))
        assert encode_key(PARAMETERS, found) == key
    check_signed_key(TERMS, PARAMETERS, key, signed(key, (5, 6), (5, 6)))
    other = encode_key(PARAMETERS, add(found, found, column(SCHEME.key_primes)))
    for endorsements, match in (
        (signed(key, (5,)), r"signed by \(5,\); allowed: 2 or more"),
        ({}, r"signed by \(\)"),
        (signed(key, (4, 5)), "of the officers"),
        (signed(key, MEMBERS, by=(5, 6)), "not all that member 5 signed with"),
        ({**signed(key, MEMBERS), **signed(key, (6, 7), by=(6,))}, "not all that member 6"),
        (signed(key, (5, 6), (5, 7)), "has no part in it"),
    ):
        with pytest.raises(Malformed, match=match):
            check_signed_key(TERMS, PARAMETERS, key, endorsements)
    for one, another in ((key, other), (other, key)):  # whichever hash is the greater
        endorsements = {**signed(one, (5, 6)), **signed(another, (5, 6), by=(6,))}
        with pytest.raises(Malformed, match="member 6 signed another key"):
            check_signed_key(TERMS, PARAMETERS, one, endorsements)
    messages = signed(key, (5, 6))
    with pytest.raises(MessageRefused):
        check_signed_key(TERMS, PARAMETERS, key, {5: messages[5], 6: messages[5]})


# --- answers --------------------------------------------------------------------------------------


def test_a_set_is_answered_once_and_a_few_in_all() -> None:
    asked: list[Set] = []

    def make(members: Set) -> bytes:
        asked.append(members)
        return bytes([len(asked), *members])

    answers = Answers(2)
    assert answers.give([(1, 2)], make) == bytes([1, 1, 2])
    with pytest.raises(Malformed, match="answers for 3 sets of members; allowed: 2"):
        answers.give([(1, 3), (2, 3)], make)
    assert asked == [(1, 2)]
    assert answers.give([(1, 3), (1, 2)], make) == bytes([2, 1, 3, 1, 1, 2])
    assert answers.give([(1, 2), (1, 3)], make) == bytes([1, 1, 2, 2, 1, 3])
    with pytest.raises(Malformed, match="allowed: 2"):
        answers.give([(2, 3)], make)
    assert answers.give([], make) == b""
    writer = Writer()
    answers.write(writer)
    expected = Writer().u32(2).indices((1, 2)).sized(bytes([1, 1, 2]))
    assert writer.done() == expected.indices((1, 3)).sized(bytes([2, 1, 3])).done()


# --- what a member answers for --------------------------------------------------------------------


def test_a_member_answers_for_the_first_ciphertexts_of_a_round_alone() -> None:
    """Another upload of one client, signed by it: its sums could be told apart from the first."""
    terms = terms_for("threshold", 3)
    run = Run("threshold", terms, make_vectors(terms))
    run.drive()
    again = client_seat(1, lambda: run.vectors[1], seeded("again"))
    other = SECURE_SUMS["threshold"].client(terms, again).step(run.requests[4][1])
    (opening,) = (
        messages[4]
        for messages in run.requests
        if 4 in messages and messages[4][1] == Step.THRESHOLD_OPEN
    )
    request = OpenRequest.decode(payload_of(opening))
    member = run.officers[4]
    member.step(opening)
    uploads = [other, *request.uploads[1:]]
    assert senders_of(terms, uploads) == senders_of(terms, request.uploads)
    changed = OpenRequest(request.intent, request.evidence, uploads).encode()
    with pytest.raises(MessageRefused, match="answers for other ciphertexts of this round already"):
        member.step(resign(opening, changed))


def test_a_member_tests_the_key_in_twice_as_many_sets_as_it_opens() -> None:
    terms = terms_for("threshold", 3)
    run = Run("threshold", terms, make_vectors(terms))
    member = run.officers[4]
    assert isinstance(member, ThresholdMember)
    assert member._tests._limit == 2 * member._parts._limit == 2 * choose(terms).answers
