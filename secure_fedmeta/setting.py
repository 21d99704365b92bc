"""What aggregator and clients agree on before a run; each party trusts its own copy alone."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import torch

from crypto.errors import RingRefused
from crypto.keys import Roster
from crypto.ring import Ring
from crypto.secure_sum import Committee, SecureSum, Sharing, Terms
from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.vector import ParameterVector


@dataclass(frozen=True)
class Setting:
    """The public facts of one run.

    Attributes:
        run: 32 random bytes that name the run.
        config_digest: digest of the config that the party read.
        plan: the privacy plan, computed by the party itself from its config.
        roster: signing keys of the aggregator and of all clients.
        log_key: verifying key of the run's log, a vkey of a signed note.
        spec: layout of the model's parameters.
        protocol: the secure sum.
        ring: integers mod 2^b with room for the plan's sums.
        sharing: with how many clients secrets are shared, and how many recover one.
        committee: how many officers the roster names, and how many of them open a sum.
    """

    run: bytes
    config_digest: bytes
    plan: PrivacyPlan
    roster: Roster
    log_key: str
    spec: ParameterVector
    protocol: SecureSum
    ring: Ring
    sharing: Sharing
    committee: Committee

    def terms(self, *, round_index: int, attempt: int, model_digest: bytes) -> Terms:
        """The terms of one attempt at one round, for this party's own secure-sum machine."""
        return Terms(
            run=self.run,
            round=round_index,
            attempt=attempt,
            config_digest=self.config_digest,
            plan_digest=self.plan.digest(),
            model_digest=model_digest,
            roster=self.roster,
            cohort=self.plan.cohort(round_index),
            ring=self.ring,
            length=self.plan.dimension,
            degree=self.sharing.degree,
            threshold=self.sharing.threshold,
            min_survivors=self.plan.min_survivors,
            max_colluders=self.plan.max_colluders,
            committee_threshold=self.committee.threshold,
        )

    def model_digest(self, model: torch.Tensor) -> bytes:
        """Digest of parameters `[d]`, their layout and the module's constants: 32 bytes."""
        return self.spec.digest(model)

    def handout_digest(self, model: torch.Tensor, clip: float) -> bytes:
        """Digest of what a round is computed at, parameters `[d]` and clip bound: 32 bytes."""
        return hashlib.sha256(
            b"fedmeta/handout/v1\n" + self.model_digest(model) + struct.pack("<d", clip)
        ).digest()


def ring_for(plan: PrivacyPlan) -> Ring:
    """The integers in which a plan's sums have room.

    Raises:
        ConfigError: no ring is large enough.
    """
    try:
        return Ring.for_sum(
            max_abs=plan.max_abs,
            clients=plan.clients,
            # Cut off with the rest, noise is within max_abs already.
            noise_std=0.0 if plan.noise == LOCAL else plan.noise_std(plan.clients),
            dimension=plan.dimension,
        )
    except RingRefused as error:
        raise ConfigError(str(error), key="privacy.max_units_per_client") from error
