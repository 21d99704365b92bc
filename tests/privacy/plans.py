"""Plans that the tests share."""

from __future__ import annotations

from typing import Any

from privacy.plan import PrivacyPlan

TERMS: dict[str, Any] = {
    "delta": 1e-5,
    "rounds": 30,
    "clip": 1.0,
    "parameters": 30,
    "expected_units": 100,
    "max_units_per_client": 10,
    "clients": 10,
    "min_survivors": 8,
    "max_colluders": 1,
    "person_units": 4,
}


def calibrated(epsilon: float = 3.0, **changes: Any) -> PrivacyPlan:
    return PrivacyPlan.calibrated(epsilon=epsilon, **{**TERMS, **changes})


def with_noise(noise_multiplier: float = 8.0, **changes: Any) -> PrivacyPlan:
    return PrivacyPlan.from_noise_multiplier(
        noise_multiplier=noise_multiplier, **{**TERMS, **changes}
    )
