"""Vectors of what parties agree on and send: envelope, roster, terms."""

from __future__ import annotations

from typing import Any

from crypto.envelope import AGGREGATOR, EVERYBODY, Heading, Step, seal, unseal
from crypto.keys import Identity, Member, Roster
from crypto.ring import Ring
from crypto.terms import Terms
from tests.vectors.format import Case, Format, bad
from tests.vectors.primitives import stream

unhex = bytes.fromhex
SEEDS = {index: stream(f"identity {index}", 32) for index in range(5)}
IDENTITIES = {index: Identity.from_seed(seed) for index, seed in SEEDS.items()}
CONTEXT = stream("context", 32)


def roster_of(case: Case) -> Roster:
    """The roster that a case holds."""
    return Roster(
        unhex(case["aggregator"]),
        tuple(Member(m["name"], unhex(m["public"])) for m in case["members"]),
        tuple(Member(m["name"], unhex(m["public"])) for m in case["officers"]),
    )


def roster_fields(members: int, officers: int) -> Case:
    """A roster as a case holds it."""

    def party(index: int, kind: str) -> dict[str, str]:
        return {"name": f"{kind} {index}", "public": IDENTITIES[index].public.hex()}

    return {
        "aggregator": IDENTITIES[0].public.hex(),
        "members": [party(k, "member") for k in range(1, members + 1)],
        "officers": [party(members + k, "officer") for k in range(1, officers + 1)],
    }


# --- envelope -------------------------------------------------------------------------------------


def _heading(case: Case) -> Heading:
    step = Step[case["step"].upper().replace(" ", "_")]
    return Heading(step, case["sender"], case["recipient"], unhex(case["context"]))


def _sealed(heading: Heading, payload: bytes, signer: int) -> Case:
    return {
        "step": heading.step.label,
        "sender": heading.sender,
        "recipient": heading.recipient,
        "context": heading.context.hex(),
        "payload": payload.hex(),
        "message": seal(IDENTITIES[signer], heading, payload).hex(),
    }


def _good_envelope() -> list[Case]:
    common = {"roster": roster_fields(3, 1), "seeds": {str(k): v.hex() for k, v in SEEDS.items()}}
    headings = [
        Heading(Step.ADVERTISE, AGGREGATOR, 2, CONTEXT),
        Heading(Step.MASKED_INPUT, 2, AGGREGATOR, CONTEXT),
        Heading(Step.CONSISTENCY, 3, EVERYBODY, stream("other context", 32)),
    ]
    return [
        {"name": f"{h.step.label} by {h.sender}, {size} bytes"}
        | _sealed(h, stream("payload", size), h.sender)
        | common
        for h, size in zip(headings, (0, 33, 32), strict=True)
    ]


def _check_envelope(case: Case) -> None:
    heading, roster = _heading(case), roster_of(case["roster"])
    assert bytes(unseal(unhex(case["message"]), heading, roster)).hex() == case["payload"]
    signer = Identity.from_seed(unhex(case["seeds"][str(case["sender"])]))
    assert seal(signer, heading, unhex(case["payload"])).hex() == case["message"]


def _bad_envelope() -> list[Case]:
    heading = Heading(Step.SHARE, 2, AGGREGATOR, CONTEXT)
    right = unhex(_sealed(heading, b"payload", 2)["message"])
    expected = _sealed(heading, b"payload", 2) | {"roster": roster_fields(3, 1)}

    def case(name: str, bug: str, reason: str, message: bytes) -> Case:
        sent = {**expected, "message": message.hex()}
        return bad(name, bug, "MessageRefused", reason, **sent)

    def signed(signer: int, **changes: Any) -> bytes:
        fields = {"step": heading.step, "sender": 2, "recipient": 0, "context": CONTEXT}
        return seal(IDENTITIES[signer], Heading(**{**fields, **changes}), b"payload")

    flipped = bytearray(right)
    flipped[46] ^= 1
    order = 2**252 + 27742317777372353535851937790883648493
    high = int.from_bytes(right[-32:], "little") + order
    return [
        case("version 2", "Version", "unknown version", b"\2" + right[1:]),
        case("of another step", "Replay", "another step", signed(2, step=Step.UNMASK)),
        case("of another round", "Replay", "another round", signed(2, context=bytes(32))),
        case("to everybody", "Misdirected", "another recipient", signed(2, recipient=EVERYBODY)),
        case("of another sender", "Impostor", "another sender", signed(3, sender=3)),
        case("signed by another client", "Impostor", "does not verify", signed(3)),
        case("signed by the aggregator", "Impostor", "does not verify", signed(0)),
        case("one bit of the payload", "Unsigned", "does not verify", bytes(flipped)),
        case("no signature", "Unsigned", "does not verify", right[:-64] + bytes(64)),
        case(
            "S + L in the signature",
            "Malleable",
            "does not verify",
            right[:-32] + high.to_bytes(32, "little"),
        ),
        case("a byte behind it", "Trailing", "left over", right + b"\0"),
        case("a byte missing", "CutOff", "wanted", right[:-1]),
        case("nothing", "CutOff", "wanted", b""),
        case("longer than it is", "HugeLength", "wanted", right[:42] + b"\xff" * 4 + right[46:]),
    ]


ENVELOPE = Format(
    name="envelope",
    about=(
        "version u8 = 1 | step u8 | sender u32 | recipient u32 | context 32 bytes | payload behind"
        " its length u32 | Ed25519 signature 64 bytes over SHA-256 of"
        " 'fedmeta/secure-sum/v1/message' NUL and all that stands before it."
        " Sender 0 is the aggregator, recipient 2^32 - 1"
        " everybody; other indices are places in the roster. A bad case says what was waited for;"
        " 'message' is what came."
    ),
    bugs={
        "Version": "A message of another format is read as this one.",
        "Replay": "What was said in one step, round or attempt counts in another.",
        "Misdirected": "What was meant for one party is taken by another.",
        "Impostor": "Somebody speaks in another's name.",
        "Unsigned": "Whoever carries messages can change them.",
        "Malleable": "One message has two signatures, so digests of messages say nothing.",
        "Trailing": "Bytes that nobody signed travel along.",
        "CutOff": "A reader reads beyond the end, or fills up.",
        "HugeLength": "Memory is taken by the length that a message claims.",
    },
    good=_good_envelope,
    bad=_bad_envelope,
    check=_check_envelope,
    refuse=lambda case: unseal(unhex(case["message"]), _heading(case), roster_of(case["roster"])),
)

# --- roster and terms -----------------------------------------------------------------------------


def _good_roster() -> list[Case]:
    cases = []
    for members, officers in ((1, 0), (3, 1), (2, 2)):
        fields = roster_fields(members, officers)
        digest = roster_of(fields).digest.hex()
        name = f"{members} members, {officers} officers"
        cases.append({"name": name, **fields, "digest": digest})
    return cases


def _check_roster(case: Case) -> None:
    roster = roster_of(case)
    assert roster.digest.hex() == case["digest"]
    parties = [*case["members"], *case["officers"]]
    for index, party in enumerate(parties, start=1):
        assert roster.public_of(index).hex() == party["public"]


def _bad_roster() -> list[Case]:
    whole = roster_fields(3, 1)
    one, two, three = whole["members"]

    def case(name: str, bug: str, reason: str, **changes: Any) -> Case:
        return bad(name, bug, "KeyRefused", reason, **{**whole, **changes})

    def renamed(name: str) -> list[dict[str, str]]:
        return [{**one, "name": name}, two, three]

    return [
        case("no members", "Empty", "1 to", members=[], officers=[]),
        case("a key twice", "TwoParts", "same public key", members=[one, {**two, **one}, three]),
        case("a member is the aggregator", "TwoParts", "same public key", aggregator=one["public"]),
        case("an officer is a member", "TwoParts", "same public key", officers=[one]),
        case("a name twice", "TwoNames", "same name", members=renamed(two["name"])),
        case("no name", "TwoNames", "empty or unprintable", members=renamed("")),
        case("a line in a name", "TwoNames", "empty or unprintable", members=renamed("a\nb")),
        case("a short key", "WrongLength", "32 bytes", aggregator="00" * 31),
    ]


ROSTER = Format(
    name="roster",
    about=(
        "Tagged digest (see codec) with the label 'fedmeta/roster/v2' of the aggregator's key, a"
        " frame 'members' and a frame 'officers', each of name and key of every party in order."
        " Members have the indices 1 to n, officers follow."
    ),
    bugs={
        "Empty": "Thresholds over nobody.",
        "TwoParts": "One party counts twice, or watches over itself.",
        "TwoNames": "People take one party for another.",
        "WrongLength": "A key that verifies nothing, or everything.",
    },
    good=_good_roster,
    bad=_bad_roster,
    check=_check_roster,
    refuse=roster_of,
)

_DIGESTS = ("run", "config_digest", "plan_digest", "model_digest")


def terms_of(case: Case) -> Terms:
    """The terms that a case holds: names and values of to_json, and the roster."""
    fields = {k: v for k, v in case["terms"].items() if k not in ("roster_digest", "ring_bits")}
    fields |= {name: unhex(fields[name]) for name in _DIGESTS}
    return Terms(
        **{**fields, "cohort": tuple(fields["cohort"])},
        roster=roster_of(case["roster"]),
        ring=Ring(case["terms"]["ring_bits"]),
    )


def terms_fields(**changes: Any) -> Case:
    """Terms as a case holds them."""
    roster = roster_fields(4, 0)
    terms: dict[str, Any] = {name: stream(name, 32).hex() for name in _DIGESTS}
    terms |= {"round": 3, "attempt": 1, "cohort": [1, 2, 3, 4], "ring_bits": 20, "length": 5}
    terms |= {"degree": 3, "threshold": 3, "min_survivors": 3, "max_colluders": 0}
    terms |= {"committee_threshold": 0, "roster_digest": roster_of(roster).digest.hex()}
    return {"roster": roster, "terms": {**terms, **changes}}


def _good_terms() -> list[Case]:
    changes: list[dict[str, Any]] = [{}, {"attempt": 2}, {"cohort": [1, 2, 4], "degree": 2}]
    changes.append({"model_digest": "11" * 32})
    cases = []
    for change in changes:
        fields = terms_fields(**change)
        terms = terms_of(fields)
        contexts = {"ctx1": terms.ctx1.hex(), "ctx2": terms.ctx2(b"root", b"graph").hex()}
        name = ", ".join(change) or "all"
        cases.append({"name": name, **fields, "root": "root", "graph": "graph", **contexts})
    return cases


def _check_terms(case: Case) -> None:
    terms = terms_of(case)
    assert terms.to_json() == case["terms"]
    assert terms.ctx1.hex() == case["ctx1"]
    assert terms.ctx2(case["root"].encode(), case["graph"].encode()).hex() == case["ctx2"]


def _bad_terms() -> list[Case]:
    def case(name: str, bug: str, reason: str, **changes: Any) -> Case:
        return bad(name, bug, "TermsRefused", reason, **terms_fields(**changes))

    return [
        case("cohort not increasing", "Order", "strictly increasing", cohort=[2, 1, 3]),
        case("a client twice", "Order", "strictly increasing", cohort=[1, 2, 2]),
        case("a client outside the roster", "Stranger", "1 to 4", cohort=[1, 2, 5]),
        case("the aggregator as a client", "Stranger", "1 to 4", cohort=[0, 1, 2]),
        case("no client", "Stranger", "one at least", cohort=[]),
        case("a negative round", "Range", "round is -1", round=-1),
        case("a round beyond 32 bits", "Range", "round is 4294967296", round=2**32),
        case("no values", "Range", "length is 0", length=0),
        case("a threshold of none", "Range", "threshold is 0", threshold=0),
        case("a short digest", "WrongLength", "model_digest is not 32", model_digest="11" * 31),
    ]


TERMS = Format(
    name="terms",
    about=(
        "ctx1 is the tagged digest (see codec) with the label 'fedmeta/secure-sum/v1' of run, the"
        " numbers as u32 in the order of crypto.terms (round, attempt, ring bits, length, degree,"
        " threshold, min_survivors, max_colluders, committee threshold, cohort), config and plan"
        " digest and roster digest; ctx2, with '.../ctx2', of ctx1, model digest, root of the"
        " adverts and graph."
    ),
    bugs={
        "Order": "Two parties number the same clients differently.",
        "Stranger": "Somebody without a key takes part.",
        "Range": "A number that wraps is another number.",
        "WrongLength": "Fields of a digest run into each other.",
    },
    good=_good_terms,
    bad=_bad_terms,
    check=_check_terms,
    refuse=terms_of,
)

FORMATS = (ENVELOPE, ROSTER, TERMS)
