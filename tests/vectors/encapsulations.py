"""Encapsulations that were drawn once: the one randomness that no caller can inject.

Each belongs to an encapsulation key and the number of times that key was used before in the same
attempt. Both the secret and its ciphertext are kept; that they belong together shows wherever the
owner of the key decapsulates.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from unittest.mock import patch

from crypto.hybrid import encapsulate
from tests.vectors.format import FOLDER

PATH = FOLDER / "encapsulations.json"


class Encapsulations:
    """Gives back what was drawn, in the order of use; counts start again in every attempt."""

    _new: ClassVar[dict[str, dict[str, str]] | None] = None

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, str]] = json.loads(PATH.read_text())
        self._used: Counter[bytes] = Counter()

    @classmethod
    @contextmanager
    def drawing(cls) -> Iterator[None]:
        """Draw what is missing, and keep what was used when this ends."""
        if not PATH.exists():
            PATH.write_text("{}")
        cls._new = {}
        try:
            yield
            PATH.write_text(json.dumps(cls._new, indent=1, sort_keys=True) + "\n")
        finally:
            cls._new = None

    @contextmanager
    def injected(self) -> Iterator[None]:
        """Put this in the place of the library's encapsulation."""
        with (
            patch("crypto.masking_keys.encapsulate", self._encapsulate),
            patch("crypto.channel.encapsulate", self._encapsulate),
        ):
            yield

    def _encapsulate(self, peer: bytes) -> tuple[bytes, bytes]:
        name = f"{hashlib.sha256(peer).hexdigest()[:32]}/{self._used[peer]}"
        self._used[peer] += 1
        kept = (self._new or {}).get(name, self._kept.get(name))
        if kept is None and self._new is not None:
            secret, ciphertext = encapsulate(peer)
            kept = {"secret": secret.hex(), "ciphertext": ciphertext.hex()}
        if kept is None:
            raise LookupError("no such encapsulation was drawn: run scripts/build_vectors.py")
        if self._new is not None:
            self._new[name] = kept
        return bytes.fromhex(kept["secret"]), bytes.fromhex(kept["ciphertext"])
