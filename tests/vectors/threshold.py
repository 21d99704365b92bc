"""Vectors of the threshold sum: its messages, shares with their combinations, and pads."""

from __future__ import annotations

import numpy as np

from crypto.he_parameters import ntt_primes
from crypto.threshold_messages import (
    Check,
    Dealing,
    Endorsement,
    Held,
    decode_sets,
    encode_sets,
)
from crypto.threshold_pads import pad_of, pair_key
from crypto.threshold_sharing import Share, combinations, deal
from tests.vectors.format import Case, Format, bad
from tests.vectors.primitives import stream

unhex = bytes.fromhex

_FEW = 64  # ring degree of the vectors; the product takes 8192, and nothing else is different
_PRIMES = ntt_primes(_FEW, (40, 41))
_DEALERS = (5, 6, 7)
_SHAPE = (1, len(_PRIMES), _FEW)


def _share() -> Share:
    secret = np.frombuffer(stream("secret", 8 * _FEW * len(_PRIMES)), dtype="<u8")
    secret = secret.reshape(len(_PRIMES), _FEW) % np.array(_PRIMES, dtype=np.uint64)[:, None]
    drawn = iter(range(10**6))
    return deal(secret, (1, 2, 3), 2, _PRIMES, lambda n: stream(f"deal {next(drawn)}", n))[2]


def _good() -> list[Case]:
    share, seed = _share(), stream("seed", 32)
    told = combinations(share, seed, _PRIMES)
    halves = {k: stream(f"half {k}", 32) for k in (5, 6)}
    context = stream("context", 32)
    key = pair_key(context, halves)
    pad = pad_of(5, {6: key}, (5, 6), context, _SHAPE, _PRIMES)
    check = Check((), dict.fromkeys(_DEALERS, told))
    dealing = Dealing(stream("part", 40), {6: stream("a", 32), 7: stream("b", 32)})
    endorsed = Endorsement(stream("key", 32), _DEALERS, (5, 7))
    held = Held(stream("intent", 32), (1, 2, 4), stream("sum", 32))
    return [
        {
            "name": "share",
            "primes": _PRIMES,
            "seed": seed.hex(),
            "share": share.encode(_PRIMES).hex(),
            "words": share.words.tolist(),
            "combinations": told,
        },
        {
            "name": "pad",
            "primes": _PRIMES,
            "halves": {k: half.hex() for k, half in halves.items()},
            "context": context.hex(),
            "pair_key": key.reveal().hex(),
            "pad": pad.tolist(),
        },
        {
            "name": "messages",
            "primes": _PRIMES,
            "dealing": dealing.encode().hex(),
            "check": check.encode().hex(),
            "complaint": Check((6,), {}).encode().hex(),
            "endorsement": endorsed.encode().hex(),
            "held": held.encode().hex(),
            "sets": encode_sets(((5, 6), (5, 7))).hex(),
        },
    ]


def _check(case: Case) -> None:
    primes = tuple(case["primes"])
    if case["name"] == "share":
        share = Share.decode(unhex(case["share"]), primes, _FEW)
        assert share.words.tolist() == case["words"]
        assert share.encode(primes).hex() == case["share"]
        told = combinations(share, unhex(case["seed"]), primes)
        assert [list(row) for row in told] == case["combinations"]
    elif case["name"] == "pad":
        halves = {int(k): unhex(half) for k, half in case["halves"].items()}
        context = unhex(case["context"])
        key = pair_key(context, halves)
        assert key.reveal().hex() == case["pair_key"]
        lower = pad_of(5, {6: key}, (5, 6), context, _SHAPE, primes)
        higher = pad_of(6, {5: key}, (5, 6), context, _SHAPE, primes)
        assert lower.tolist() == case["pad"]
        assert not ((lower + higher) % np.array(primes, dtype=np.uint64)[:, None]).any()
    else:
        data = {name: unhex(case[name]) for name in case if name not in ("name", "primes")}
        assert Dealing.decode(data["dealing"]).encode() == data["dealing"]
        assert Check.decode(data["check"], _DEALERS, primes).encode() == data["check"]
        assert Check.decode(data["complaint"], _DEALERS, primes).complaints == (6,)
        assert Endorsement.decode(memoryview(data["endorsement"])).signers == (5, 7)
        assert Held.decode(data["held"]).survivors == (1, 2, 4)
        assert decode_sets(data["sets"]) == ((5, 6), (5, 7))


def _bad() -> list[Case]:
    share = _share()
    high = Share(share.words.copy(), share.blinding)
    high.words[1, 3] = _PRIMES[1]
    whole = share.encode(_PRIMES).hex()
    over = tuple((p, *row[1:]) for p, row in zip(_PRIMES, share.blinding, strict=True))
    check = Check((), dict.fromkeys(_DEALERS, over))

    def case(name: str, bug: str, reason: str, of: str, data: str) -> Case:
        return bad(name, bug, "Malformed", reason, of=of, data=data)

    return [
        case(
            "a word that is its prime", "NotReduced", "below", "share", high.encode(_PRIMES).hex()
        ),
        case(
            "a blinding word that is its prime",
            "NotReduced",
            "below",
            "share",
            Share(share.words, over).encode(_PRIMES).hex(),
        ),
        case(
            "a combination that is its prime", "NotReduced", "below", "check", check.encode().hex()
        ),
        case("a byte too many", "WrongLength", "1 byte", "share", whole + "00"),
        case("nothing", "WrongLength", "bytes", "share", ""),
        case(
            "about nobody that dealt", "Stranger", "nobody", "check", Check((9,), {}).encode().hex()
        ),
        case("a set twice", "Twice", "twice", "sets", encode_sets(((5, 6), (5, 6))).hex()),
    ]


def _refuse(case: Case) -> object:
    data = unhex(case["data"])
    if case["of"] == "share":
        return Share.decode(data, _PRIMES, _FEW)
    return Check.decode(data, _DEALERS, _PRIMES) if case["of"] == "check" else decode_sets(data)


FORMATS = (
    Format(
        name="threshold",
        about=(
            "Formats of crypto.threshold_messages; a share is its words, packed as in"
            " crypto.he_words, then for each prime its blinding words as u64. A combination is the"
            " inner product with SHAKE-256 factors of the seed, plus a blinding word. The pad of"
            " the lower member is the AES-256-CTR stream of the pair's key for the set, as words of"
            " 8 bytes cut to the bits of the prime, without those that are not below it; the"
            " higher member's is its negative."
        ),
        bugs={
            "NotReduced": "A word not below its prime reaches arithmetic that relies on it.",
            "WrongLength": "Two parties read the same bytes differently.",
            "Stranger": "A complaint about nobody ends attempts and names nobody.",
            "Twice": "Two answers in one set, with fresh smudging each.",
        },
        good=_good,
        bad=_bad,
        check=_check,
        refuse=_refuse,
    ),
)
