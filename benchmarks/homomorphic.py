"""Homomorphic sums against CKKS as NVFLARE and TenSEAL's defaults use it: bytes and encryption.

Every contestant turns one vector of small integers into the bytes that a client uploads, from
encoding to serialisation, in turn and in one process:

- ours: `crypto.he`, exact BFV sums, with the lane of `bits` values summed over `clients`;
- threshold: `crypto.threshold` with 3 of 5 officers, the same values; a member's part of the
  decryption and the combination of three are timed too, and the bound that smudging meets is told;
- NVFLARE-like: TenSEAL CKKS, degree 8192, coefficient moduli [60, 40, 40], scale 2^40, symmetric,
  a whole layer as one `ckks_vector`, as its model encryptor makes them;
- NVFLARE in chunks: the same, cut by the caller into full ciphertexts, which TenSEAL does faster;
- TenSEAL default: one `ckks_vector` on degree 8192, [60, 40, 40, 60], scale 2^40, public key.

All run in one thread. Ours includes neither the signature nor the heading (110 bytes).

`pool_vs_single` is the time to encrypt POOL_ROWS ciphertexts in one process over that in one per
free core, starting them included; above 1 the pool is faster.

`compression` holds bytes and held-out score of the sinusoid example at 8, 12 and 16 value bits, see
benchmarks/_compression.py.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tenseal
from numpy.typing import NDArray

from benchmarks._common import arguments, in_turn, machine, report, versions
from benchmarks._compression import compression
from benchmarks._threshold import Ours as Threshold
from crypto.he_messages import decode_ciphertexts, encode_ciphertexts
from crypto.he_packing import from_coefficients, to_coefficients
from crypto.he_parameters import Parameters, parameters_for
from crypto.he_pool import encrypt_all
from crypto.he_seal import Encryptor, KeyPair, scheme_for

SLOTS = 4096
POOL_ROWS = 2048
SCALE = 2.0**40


class Ours:
    """Client and officer of `crypto.he` for one vector, without envelopes."""

    def __init__(self, values: NDArray[np.int64], bits: int, clients: int) -> None:
        lane = bits + math.ceil(math.log2(clients))
        self.parameters: Parameters = parameters_for(lane, clients, values.size)
        scheme = scheme_for(self.parameters)
        self._keys = KeyPair(scheme)
        self._encryptor = Encryptor(scheme, self._keys.public)
        self._values = values

    def encrypt(self) -> bytes:
        """From the vector to the packed upload."""
        rows = to_coefficients(self._values, self.parameters)
        return encode_ciphertexts(self.parameters, self._encryptor.encrypt_all(rows))

    def parse(self, upload: bytes) -> NDArray[np.uint64]:
        """What the officer does with each upload before it adds."""
        return decode_ciphertexts(memoryview(upload), self.parameters)

    def add(self, total: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
        """Add an upload."""
        primes = np.array(self.parameters.data_primes, dtype=np.uint64)[:, None]
        total += words
        np.minimum(total, total - primes, out=total)

    def decrypt(self, words: NDArray[np.uint64]) -> NDArray[np.int64]:
        """From the sum of ciphertexts to the sum of vectors."""
        rows = np.stack([self._keys.decrypt(row)[0] for row in words])
        return from_coefficients(rows, self.parameters, self._values.size)


class Ckks:
    """TenSEAL's own vectors, `chunk` values in each."""

    def __init__(
        self,
        values: NDArray[np.int64],
        moduli: list[int],
        kind: tenseal.ENCRYPTION_TYPE,
        *,
        chunk: int,
    ) -> None:
        self._context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS,
            2 * SLOTS,
            coeff_mod_bit_sizes=moduli,
            encryption_type=kind,
            n_threads=1,
        )
        self._context.global_scale = SCALE
        floats = values.astype(np.float64)
        self._chunks = [floats[at : at + chunk] for at in range(0, floats.size, chunk)]

    def encrypt(self) -> list[bytes]:
        """From the vector to what would be uploaded."""
        return [tenseal.ckks_vector(self._context, c).serialize() for c in self._chunks]


class Many:
    """Encryption of POOL_ROWS ciphertexts, in this process and over workers."""

    def __init__(self, parameters: Parameters, seed: int) -> None:
        self._parameters = parameters
        scheme = scheme_for(parameters)
        self._key = KeyPair(scheme).public
        self._encryptor = Encryptor(scheme, self._key)
        top = 1 << parameters.plain_bits
        rng = np.random.default_rng(seed)
        self._plain = rng.integers(0, top, (POOL_ROWS, SLOTS), dtype=np.uint64)

    def single(self) -> object:
        """One after the other."""
        return self._encryptor.encrypt_all(self._plain)

    def pool(self) -> object:
        """As a client with a model of this size does."""
        return encrypt_all(self._parameters, self._key, self._plain)


@contextmanager
def silenced() -> Iterator[None]:
    """Nothing on standard output: TenSEAL writes there that long vectors cannot be multiplied."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def main() -> None:
    parser = arguments(str(__doc__).partition("\n")[0])
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    vectors = {bits: rng.integers(-(1 << bits - 1), 1 << bits - 1, args.values) for bits in (8, 16)}
    ours = Ours(vectors[16], 16, 100)
    narrow = Ours(vectors[8], 8, 10)
    threshold = Threshold(vectors[16], 16, 100)
    joint = threshold.encrypted()
    parts = threshold.parts(joint)
    wide, symmetric = vectors[16], tenseal.ENCRYPTION_TYPE.SYMMETRIC
    public = tenseal.ENCRYPTION_TYPE.ASYMMETRIC
    peers = {
        "nvflare_like": Ckks(wide, [60, 40, 40], symmetric, chunk=args.values),
        "nvflare_chunked": Ckks(wide, [60, 40, 40], symmetric, chunk=SLOTS),
        "tenseal_default": Ckks(wide, [60, 40, 40, 60], public, chunk=args.values),
    }
    uploads = {
        "ours": len(ours.encrypt()),
        "threshold": len(threshold.encrypt()),
        "ours_w8_n10": len(narrow.encrypt()),
    }
    with silenced():
        uploads |= {name: sum(map(len, peer.encrypt())) for name, peer in peers.items()}
    upload = ours.encrypt()
    words = ours.parse(upload)
    exact = bool((ours.decrypt(words) == vectors[16]).all())
    exact &= bool((threshold.combine(joint, parts) == vectors[16]).all())
    total = words.copy()
    many = Many(ours.parameters, args.seed)
    contestants: dict[str, Callable[[], object]] = {
        "pool": many.pool,
        "single": many.single,
        "ours": ours.encrypt,
        **{name: peer.encrypt for name, peer in peers.items()},
        "ours_w8_n10": narrow.encrypt,
        "threshold": threshold.encrypt,
        "threshold_part": lambda: threshold.part(joint),
        "threshold_combine": lambda: threshold.combine(joint, parts),
        "ours_parse": lambda: ours.parse(upload),
        "ours_add": lambda: ours.add(total, words),
        "ours_decrypt": lambda: ours.decrypt(words),
    }
    with silenced():
        timings = in_turn(contestants, rounds=args.rounds, warmup=1)
    many_values = dict.fromkeys(("pool", "single"), POOL_ROWS * ours.parameters.values)
    per_value = {
        name: round(t.median / many_values.get(name, args.values) * 1e9, 1)
        for name, t in timings.items()
    }
    size = {name: round(count / args.values, 3) for name, count in uploads.items()}
    ratios = {
        f"encrypt_vs_{name}": timings[name].median / timings["ours"].median for name in peers
    } | {f"bytes_vs_{name}": uploads[name] / uploads["ours"] for name in peers}
    ratios["pool_vs_single"] = timings["single"].median / timings["pool"].median
    chosen, told = ours.parameters, threshold.to_json(parts)
    compressed = compression(args.seed)
    result = {
        "benchmark": "homomorphic",
        "values": args.values,
        "bytes_per_value": size["ours"],
        "threshold_bytes_per_value": size["threshold"],
        "bytes_per_value_w8_n10": size["ours_w8_n10"],
        "bytes_per_value_nvflare_like": size["nvflare_like"],
        "bytes_per_value_tenseal_default": size["tenseal_default"],
        "ns_per_value": per_value,
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
        "exact": exact,
        "threshold": told,
        "compression": compressed,
        "parameters": {
            "lane": chosen.lane,
            "lanes": chosen.lanes,
            "prime_bits": [q.bit_length() for q in chosen.key_primes],
        },
        "seed": args.seed,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
        "machine": machine(),
        "versions": versions("tenseal", "numpy", "zstandard"),
    }
    lines = [
        f"{args.values} values of 16 bits, sums of 100 clients, one thread",
        f"{'':>16}  bytes/value  encrypt ns/value",
        *(
            f"{name:>16}  {size[name]:11.2f}  {per_value[name]:16.0f}"
            for name in ("ours", "threshold", *peers, "ours_w8_n10")
        ),
        "ours: parse {ours_parse:.0f}, decrypt {ours_decrypt:.0f} ns/value".format(**per_value),
        (
            f"threshold: part {per_value['threshold_part']:.0f}, combine"
            f" {per_value['threshold_combine']:.0f} ns/value; smudging 2^{told['smudging_bits']},"
            f" hidden to 2^{told['hiding_log2']}"
        ),
        *(
            f"sinusoid, {arm:>11}: {found['masking_bytes']:6} bytes masked, mse {found['mse']:.3f}"
            for arm, found in compressed.items()
        ),
    ]
    report(result, lines=lines, quiet=args.json)


if __name__ == "__main__":
    main()
