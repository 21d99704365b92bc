"""Secure sums by name, and everything a caller needs to run one."""

from __future__ import annotations

from typing import Final

from crypto.he import Homomorphic
from crypto.keys import Rand
from crypto.machines import (
    ClientSeat,
    Done,
    IntentCheck,
    Outgoing,
    Ready,
    Seat,
    SumAggregator,
    SumClient,
    SumOfficer,
    SumParty,
    VectorSource,
)
from crypto.masking import Masking
from crypto.plain import Plain
from crypto.protocol import Capabilities, SecureSum
from crypto.terms import Committee, Sharing, Terms
from crypto.threshold import Threshold

SECURE_SUMS: Final[dict[str, SecureSum]] = {
    "he": Homomorphic(),
    "masking": Masking(),
    "plain": Plain(),
    "threshold": Threshold(),
}

__all__ = [
    "SECURE_SUMS",
    "Capabilities",
    "ClientSeat",
    "Committee",
    "Done",
    "IntentCheck",
    "Outgoing",
    "Rand",
    "Ready",
    "Seat",
    "SecureSum",
    "Sharing",
    "SumAggregator",
    "SumClient",
    "SumOfficer",
    "SumParty",
    "Terms",
    "VectorSource",
]
