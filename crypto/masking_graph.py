"""Who is whose neighbour: a ring of all that advertised, in an order that nobody chose.

On the ring the neighbours of a client are the degree / 2 before and behind it (the Harary graph of
Bell et al., CCS 2020). The order is pseudorandom in the attempt's terms, the members and the root
of all their adverts, so every client computes it by itself, and whoever wants another order has to
try other adverts or members. A degree of members - 1 or more is the complete graph: the same ring,
all the way around.

The root is that of an RFC 6962 tree (RFC 9162, section 2.1.1) over the adverts in order of their
indices, with labels of its own. A client is shown the adverts of its neighbours and the hashes
that are missing between them and the root; where all are neighbours there are none.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from crypto.codec import Writer, tagged_digest
from crypto.errors import Malformed

HASH_BYTES: Final = 32
_LEAF: Final = b"fedmeta/masking/v1/advert\0"
_NODE: Final = b"fedmeta/masking/v1/adverts\1"
_BLOCK: Final = 16


@dataclass(frozen=True)
class Graph:
    """The neighbours of every member.

    Attributes:
        members: U1, the clients that advertised, increasing.
        degree: neighbours of a client: even, or at least members - 1.
        seed: what the order of the ring follows from, 32 bytes.
    """

    members: tuple[int, ...]
    degree: int
    seed: bytes

    @classmethod
    def over(cls, ctx1: bytes, members: tuple[int, ...], degree: int, root: bytes) -> Graph:
        """The graph of an attempt whose members' adverts have this root."""
        listed = Writer().indices(members).done()
        seed = tagged_digest("fedmeta/masking/v1/graph", ctx1, listed, root)
        return cls(members, degree, seed)

    @cached_property
    def ring(self) -> tuple[int, ...]:
        """The members in the order of 128-bit values from AES-256 in counter mode."""
        encryptor = Cipher(algorithms.AES(self.seed), modes.CTR(bytes(_BLOCK))).encryptor()
        stream = encryptor.update(bytes(_BLOCK * len(self.members)))
        values = np.frombuffer(stream, dtype=np.uint64).reshape(-1, 2)
        order = np.lexsort((values[:, 1], values[:, 0])).tolist()
        return tuple(self.members[place] for place in order)

    @cached_property
    def committee(self) -> tuple[int, ...]:
        """The closed neighbourhood of the first place: whose signatures everybody looks at."""
        return self._around(0)

    def closed(self, index: int) -> tuple[int, ...]:
        """A member and its neighbours, increasing.

        Raises:
            KeyError: it is not a member.
        """
        return self._around(self._places[index])

    def neighbours(self, index: int) -> tuple[int, ...]:
        """The neighbours of a member, increasing."""
        return tuple(k for k in self.closed(index) if k != index)

    def _around(self, place: int) -> tuple[int, ...]:
        if self.degree >= len(self.members) - 1:
            return self.members
        reach, size = self.degree // 2, len(self.members)
        return tuple(sorted(self.ring[k % size] for k in range(place - reach, place + reach + 1)))

    @cached_property
    def _places(self) -> dict[int, int]:
        return {index: place for place, index in enumerate(self.ring)}


def advert_leaf(index: int, advert: bytes) -> bytes:
    """Leaf hash of a client's advert."""
    return hashlib.sha256(_LEAF + index.to_bytes(4, "little") + advert).digest()


class AdvertTree:
    """The tree over all adverts, for whoever holds all of them.

    Args:
        leaves: leaf hashes in increasing order of the clients, one at least.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._size = len(leaves)
        self._hashes: dict[tuple[int, int], bytes] = {}
        self.root: Final = self._fill(leaves, 0, len(leaves))

    def proof(self, places: Sequence[int]) -> list[bytes]:
        """The hashes that root_of needs beside the leaves at these places, increasing."""
        return list(self._missing(0, self._size, places))

    def _fill(self, leaves: Sequence[bytes], low: int, high: int) -> bytes:
        if high - low == 1:
            value = leaves[low]
        else:
            middle = low + _split(high - low)
            left, right = self._fill(leaves, low, middle), self._fill(leaves, middle, high)
            value = _node(left, right)
        self._hashes[low, high] = value
        return value

    def _missing(self, low: int, high: int, places: Sequence[int]) -> Iterator[bytes]:
        if not places:
            yield self._hashes[low, high]
        elif high - low > 1:
            middle = low + _split(high - low)
            at = bisect_left(places, middle)
            yield from self._missing(low, middle, places[:at])
            yield from self._missing(middle, high, places[at:])


def root_of(size: int, leaves: Mapping[int, bytes], proof: Sequence[bytes]) -> bytes:
    """Root over `size` leaves, of which some are known by place.

    Args:
        size: number of leaves, one at least.
        leaves: known leaf hashes by place, 0 to size - 1.
        proof: hashes of the subtrees that hold none of them, from left to right.

    Raises:
        Malformed: not exactly as many hashes as are missing.
    """
    left_over = iter(proof)

    def root(low: int, high: int, places: Sequence[int]) -> bytes:
        if not places:
            found = next(left_over, None)
            if found is None:
                raise Malformed("hashes of adverts are missing")
            return found
        if high - low == 1:
            return leaves[low]
        middle = low + _split(high - low)
        at = bisect_left(places, middle)
        return _node(root(low, middle, places[:at]), root(middle, high, places[at:]))

    found = root(0, size, sorted(leaves))
    if next(left_over, None) is not None:
        raise Malformed("more hashes of adverts than are missing")
    return found


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two smaller than size."""
    return 1 << ((size - 1).bit_length() - 1)
