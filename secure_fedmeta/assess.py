"""Put the pipeline of a config to the test: `fedmeta assess`.

The conformance checks carry the power: they fail a pipeline that does not do what its plan says.
Attacks come after them, as corroboration, and say what they could have caught.
"""

from __future__ import annotations

import time
from typing import Any

from privacy.rng import SecureRandom
from secure_fedmeta import __version__
from secure_fedmeta.assessed import Mechanism, Subject
from secure_fedmeta.attacks import canaries, matching, membership
from secure_fedmeta.checks import Announce, Check
from secure_fedmeta.config import Config
from secure_fedmeta.conformance import conformance
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.tasks import Site

COPY = (
    "parties, secure sum, aggregator, ledger and log are those of a run, in a temporary folder",
    "no budget is charged and nothing is released",
    "the copy's server subtracts the decoded sum as it is",
    "noise is looked at on a copy with more coordinates than the model, with every unit drawn",
    "attacks are made on a copy in which one round carries the claim of the whole run",
    "draws are looked at on a copy in which each unit has a coordinate of its own",
    "with noise at the client, norms and draws are looked at on copies with little noise",
)


def assess(
    config: Config,
    mechanism: Mechanism,
    random: SecureRandom,
    announce: Announce,
    *,
    site: Site | None = None,
) -> dict[str, Any]:
    """Test a pipeline against its own claim.

    Args:
        config: the settings.
        mechanism: the real one, or one with a planted bug; nothing here asks which.
        random: draws what the attacks try; their copies draw their own noise as in a run.
        announce: told what begins.
        site: where the source is read; see `assemble`.

    Returns:
        The content of assess.json.

    Raises:
        ConfigError, DataError: the config cannot run.
    """
    began = time.monotonic()
    announce("reading data")
    subject = Subject(assemble(config, site=site), mechanism)
    checks = list(conformance(subject, announce))
    announce("canaries")
    audit = canaries(subject, random)
    attacks = list(membership(subject, random, announce))
    announce("gradient matching")
    matched = matching(subject, random)
    checks += [audit.check, *(attack.check for attack in attacks)]
    return {
        "product_version": __version__,
        "name": config.name,
        "config_digest": config.digest().hex(),
        "passed": passed(checks),
        "failed": [check.name for check in checks if check.passed is False],
        "false_alarm": sum(check.false_alarm for check in checks),
        "checks": [check.to_json() for check in checks],
        "canaries": audit.figures,
        "membership": [attack.figures for attack in attacks if attack.figures],
        "matching": matched,
        "copy": list(COPY),
        "seconds": round(time.monotonic() - began, 3),
    }


def passed(checks: list[Check]) -> bool:
    """Whether nothing failed; what could not be looked at did not."""
    return all(check.passed is not False for check in checks)
