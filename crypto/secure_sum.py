"""Secure sums by name, and everything a caller needs to run one."""

from __future__ import annotations

from typing import Final

from crypto.he import Homomorphic
from crypto.keys import Rand
from crypto.masking import Masking
from crypto.plain import Plain
from crypto.protocol import (
    Capabilities,
    Done,
    IntentCheck,
    Outgoing,
    Ready,
    SecureSum,
    SumAggregator,
    SumClient,
    SumOfficer,
    VectorSource,
)
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
    "Committee",
    "Done",
    "IntentCheck",
    "Outgoing",
    "Rand",
    "Ready",
    "SecureSum",
    "Sharing",
    "SumAggregator",
    "SumClient",
    "SumOfficer",
    "Terms",
    "VectorSource",
]
