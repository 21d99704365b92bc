"""Parts of what the aggregator logs: commitments to who took part, and figures of a release."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from audit.canonical import decimal
from audit.merkle import leaf_hash, root_of
from privacy.extras import Beside


def figures(beside: Beside) -> dict[str, object]:
    """What a release says beside its model; nothing where nothing was asked."""
    found: dict[str, object] = {}
    if beside.metrics:
        found["protected"] = {name: decimal(m.value) for name, m in beside.metrics.items()}
    if beside.clip_error is not None:
        found["clip_error"] = decimal(beside.clip_error)
    return found


def commitment_root(commitments: Iterable[bytes]) -> str:
    """Merkle root over commitments, in hexadecimal."""
    return root_of([leaf_hash(commitment) for commitment in commitments]).hex()


def commit(what: bytes, salt: bytes, value: bytes) -> bytes:
    """A commitment that only the 32-byte salt opens; without the salt it says nothing: 32 bytes."""
    return hashlib.sha256(b"fedmeta/" + what + b"/v1\n" + salt + value).digest()
