"""Noise at the client with every learner and every secure sum: small runs, to a verifying log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audit.spend import SpendChecker
from audit.verify import verify_log
from crypto.secure_sum import SECURE_SUMS
from privacy.accountant import Adversary
from privacy.events import GaussianSteps
from privacy.local import message_of
from secure_fedmeta.meta import LEARNERS
from secure_fedmeta.outcome import Release
from tests.secure_fedmeta.federation import Federation

LOCAL: dict[str, object] = {
    "privacy.noise": "local",
    "privacy.mechanism": "gaussian",
    "privacy.epsilon": None,
    "privacy.noise_multiplier": 2.0,
    "privacy.rate": 0.5,
    "privacy.person_units": 1,  # the figure of more takes seconds
    "training.rounds": 2,
    "training.local_steps": 2,
    "training.local_lr": 0.2,
    "server.optimiser": "sgd",
    "server.lr": 1.0,
}


def changes(protocol: str, learner: str, **more: object) -> dict[str, object]:
    encrypting = protocol in ("he", "threshold")
    return {
        **LOCAL,
        "secure_sum.protocol": protocol,
        "secure_sum.allow_insecure": protocol == "plain",
        "privacy.max_colluders": 0 if encrypting else 1,
        "learner.algorithm": learner,
        **more,
    }


PAIRS = sorted(
    {("masking", learner) for learner in LEARNERS.names()}
    | {(protocol, learner) for protocol in SECURE_SUMS for learner in ("maml", "meta_sgd")}
)
"""Every learner, and every secure sum with short and long vectors: it sees no more of a learner."""


@pytest.mark.parametrize(("protocol", "learner"), PAIRS)
def test_a_run_is_summed_charged_and_recomputed(
    tmp_path: Path, protocol: str, learner: str
) -> None:
    federation = Federation(tmp_path, changes(protocol, learner), seed=None)
    plan = federation.plan
    before = federation.aggregator.model
    outcomes = [federation.round(index) for index in (1, 2)]
    federation.log.close()
    assert all(isinstance(one, Release) and one.survivors == 4 for one in outcomes)
    federation.spy.check_sums()
    assert len(federation.spy.sums) == 2
    # The server subtracts the mean over clients of how far they moved.
    moved = sum(done.total for _, done in federation.spy.sums) / (4 * message_of(plan).scale)
    found = (before - federation.aggregator.model).numpy()
    np.testing.assert_allclose(found, moved, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(federation.aggregator.model).all()
    steps = {event.steps for event in federation.events() if isinstance(event, GaussianSteps)}
    assert (len(federation.events()), steps) == (2, {2})
    assert isinstance(outcomes[1], Release)
    figures = {outcomes[1].spend.adversaries[one].claimed for one in Adversary}
    assert len(figures) == 1
    verified = verify_log(
        federation.audit, vkey=federation.signer.vkey, pinned=None, spend=SpendChecker()
    )
    assert (verified.released, verified.aborted) == (2, 0)
