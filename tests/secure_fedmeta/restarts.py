"""Parties that start again from their vaults, and endpoints that note what passes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from crypto.envelope import Step
from crypto.sealed_state import StateSealer
from secure_fedmeta.client import Client, Holdings
from secure_fedmeta.party import Party
from secure_fedmeta.setting import Setting
from secure_fedmeta.vault import Vault
from tests.secure_fedmeta.federation import Federation

CHANGES: dict[str, dict[str, object]] = {
    "masking": {},
    "plain": {"secure_sum.protocol": "plain", "secure_sum.allow_insecure": True},
    "he": {"secure_sum.protocol": "he", "privacy.max_colluders": 0},
}
protocols = pytest.mark.parametrize("protocol", sorted(CHANGES))
UPLOADS = {"masking": Step.MASKED_INPUT, "plain": Step.PLAIN_INPUT, "he": Step.HE_INPUT}


def reborn(party: Party, vault: Vault, setting: Setting | None = None) -> Party:
    """The same party in a new process: all it has is what a party is given, and its vault."""
    held = vars(party)
    if not isinstance(party, Client):
        given = {name: held[f"_{name}"] for name in ("index", "identity", "rand")}
        return type(party)(setting or held["_setting"], vault=vault, **given)
    holdings = Holdings(**{each.name: held[f"_{each.name}"] for each in fields(Holdings)})
    return type(party)(setting or held["_setting"], holdings, vault=vault)


def federation_at(folder: Path, protocol: str) -> Federation:
    return Federation(folder, CHANGES[protocol])


def long_federation(folder: Path, protocol: str) -> Federation:
    """One whose clients may contribute many times."""
    return Federation(folder, {**CHANGES[protocol], "training.rounds": 40}, granted=1e6)


@dataclass
class Recorder:
    """An endpoint that notes every message and its answer."""

    inner: object
    asked: list[bytes] = field(default_factory=list)
    answered: list[bytes] = field(default_factory=list)

    def handle(self, message: bytes) -> bytes:
        reply = self.inner.handle(message)  # type: ignore[attr-defined]
        self.asked.append(message)
        self.answered.append(reply)
        return reply


@dataclass
class Restarting:
    """An endpoint whose party is made anew from its vault for every message."""

    party: Party
    vault: Vault

    def handle(self, message: bytes) -> bytes:
        return reborn(self.party, self.vault).handle(message)


def endpoint(federation: Federation, index: int, made: object) -> None:
    federation.transport._endpoints[index] = made  # type: ignore[index]


def sealer(party: Party) -> StateSealer:
    held = vars(party)
    return StateSealer(
        held["_identity"], held["_setting"].run, held["_index"], "party", held["_rand"]
    )
