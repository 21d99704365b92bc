"""Vectors of the homomorphic sum's own bytes: public keys and ciphertexts."""

from __future__ import annotations

import numpy as np

from crypto.he_messages import decode_ciphertexts, decode_key, encode_ciphertexts, encode_key
from crypto.he_parameters import Parameters, ntt_primes
from tests.vectors.format import Case, Format, bad
from tests.vectors.primitives import stream

unhex = bytes.fromhex

_FEW = 32  # ring degree of the vectors; the product takes 4096, and nothing else is different


def _parameters(case: Case) -> Parameters:
    fields = {**case["parameters"], "data_primes": tuple(case["parameters"]["data_primes"])}
    return Parameters(**fields)


def _he_fields(primes: int) -> Case:
    *data, special = ntt_primes(_FEW, (*[36] * primes, 49))
    return {
        "parameters": {
            "degree": _FEW,
            "lane": 20,
            "lanes": 2,
            "data_primes": data,
            "special_prime": special,
            "ciphertexts": 2,
        }
    }


def _words(label: str, count: int, primes: tuple[int, ...]) -> np.ndarray:
    shape = (count, 2, len(primes), _FEW)
    drawn = np.frombuffer(stream(label, 8 * int(np.prod(shape))), dtype="<u8").reshape(shape)
    return drawn % np.array(primes, dtype=np.uint64)[:, None]


def _good_he() -> list[Case]:
    cases = []
    for primes in (1, 2):
        fields = _he_fields(primes)
        parameters = _parameters(fields)
        words = _words("ciphertexts", 2, parameters.data_primes)
        key = _words("key", 1, parameters.key_primes)[0]
        cases.append(
            {
                "name": f"{primes} data primes",
                **fields,
                "ciphertexts": encode_ciphertexts(parameters, words).hex(),
                "ciphertext_words": words.tolist(),
                "key": encode_key(parameters, key).hex(),
                "key_words": key.tolist(),
            }
        )
    return cases


def _check_he(case: Case) -> None:
    parameters = _parameters(case)
    words = decode_ciphertexts(memoryview(unhex(case["ciphertexts"])), parameters)
    assert words.tolist() == case["ciphertext_words"]
    assert encode_ciphertexts(parameters, words).hex() == case["ciphertexts"]
    key = decode_key(memoryview(unhex(case["key"])), parameters)
    assert key.tolist() == case["key_words"]
    assert encode_key(parameters, key).hex() == case["key"]


def _bad_he() -> list[Case]:
    fields = _he_fields(1)
    parameters = _parameters(fields)
    words = _words("ciphertexts", 2, parameters.data_primes)
    whole = encode_ciphertexts(parameters, words)
    high, transparent, once = words.copy(), words.copy(), words.copy()
    high[1, 1, 0, 5] = parameters.data_primes[0]
    transparent[:, 1] = 0
    once[1, 1] = 0
    packed = {
        name: encode_ciphertexts(parameters, array).hex()
        for name, array in (("high", high), ("transparent", transparent), ("once", once))
    }

    def case(name: str, bug: str, reason: str, ciphertexts: str) -> Case:
        return bad(name, bug, "Malformed", reason, **fields, ciphertexts=ciphertexts)

    return [
        case("a word that is its prime", "NotReduced", "below", packed["high"]),
        case("transparent", "Transparent", "transparent", packed["transparent"]),
        case("one of two transparent", "Transparent", "transparent", packed["once"]),
        case("a byte too many", "WrongLength", "bytes", whole.hex() + "00"),
        case("a byte too few", "WrongLength", "bytes", whole.hex()[:-2]),
        case("one ciphertext of two", "WrongLength", "bytes", whole[: len(whole) // 2].hex()),
        case("nothing", "WrongLength", "bytes", ""),
    ]


HE = Format(
    name="he",
    about=(
        "Words of a prime q take bit_length(q) bits, packed as in crypto.he_words. Ciphertexts: for"
        " each data prime, 2 * N words (c0, c1) of every ciphertext in order. Public key: degree"
        " u32 | lane u8 | lanes u8 | primes u8 | each prime u64, the special one last |"
        " ciphertexts u32,"
        " then for each prime 2 * N words. Word arrays are [ciphertext][polynomial][prime]"
        "[coefficient]."
    ),
    bugs={
        "NotReduced": "A word that is not below its prime reaches arithmetic that relies on it.",
        "Transparent": "c1 = 0 hides nothing: whoever sees the sum sees what was added.",
        "WrongLength": "SEAL would take three or four polynomials and what stands behind them.",
    },
    good=_good_he,
    bad=_bad_he,
    check=_check_he,
    refuse=lambda case: decode_ciphertexts(
        memoryview(unhex(case["ciphertexts"])), _parameters(case)
    ),
)

FORMATS = (HE,)
