"""What is run and killed: small federations, one for each way of charging, noising and summing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from unittest import mock

from matplotlib.figure import Figure

from privacy.accountant import spend
from privacy.ledger import Ledger
from secure_fedmeta.config import Config, parse_config
from secure_fedmeta.pipeline import Parts, assemble
from tests.contracts.test_local_noise import LOCAL
from tests.secure_fedmeta.federation import settings

PEOPLE = "people"
LEDGER, CLIENTS_LEDGER = "state/ledger.sqlite", "clients.sqlite"


@dataclass(frozen=True)
class Scenario:
    """One config, and what its ledgers hold before the run.

    Attributes:
        changes: to the tiny config of the tests.
        grant: rounds that PEOPLE are granted; None: the population of a run of public data.
        prior: rounds that PEOPLE were charged by a run before.
        own: rounds that each client grants in a ledger of its own; None: clients keep none.
        pictures: whether curves are drawn; else an empty picture is written in their place, which
            is a third of the time.
        weight: how often it is killed, against the others.
    """

    name: str
    changes: Mapping[str, object] = field(default_factory=dict)
    grant: int | None = None
    prior: int = 0
    own: int | None = None
    pictures: bool = False
    weight: int = 1

    @property
    def seeded(self) -> bool:
        """Whether a resumed run must be that of one which was never cut off."""
        return "not_private.seed" in self.changes

    @property
    def encrypts(self) -> bool:
        """Whether its sums are homomorphic."""
        return self.changes.get("secure_sum.protocol") in ("he", "threshold")

    def config(self, place: Path) -> Config:
        """The settings, with the ledgers of this place."""
        changes = {"training.rounds": 4, "training.evaluate_every": 4, **self.changes}
        if self.grant is not None:
            changes["ledger.population"] = PEOPLE
        if self.own is not None:
            changes["ledger.client_url"] = f"sqlite:///{place / CLIENTS_LEDGER}"
        return parse_config(settings({"name": self.name, **changes}))

    def parts(self) -> Parts:
        """The assembled config; once, since calibrating takes a while."""
        return _assembled(json.dumps(self.config(Path()).model_dump(mode="json")))

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Inside, pictures are drawn as `pictures` says."""
        with ExitStack() as stack:
            if not self.pictures:
                stack.enter_context(mock.patch.object(Figure, "savefig", _sketch))
            yield

    def prepare(self, place: Path) -> None:
        """Make the ledgers as they are before the run."""
        (place / "state").mkdir(mode=0o700, parents=True)
        plan = self.parts().plan
        if self.grant is not None:
            ledger = Ledger(f"sqlite:///{place / LEDGER}")
            events = [plan.worst_event()] * (self.grant + self.prior)
            epsilon = spend(events, delta=plan.delta).worst
            ledger.grant(
                PEOPLE, unit=plan.unit, epsilon=epsilon, delta=plan.delta, approver="board"
            )
            for index in range(1, self.prior + 1):
                event = plan.worst_event()
                held = ledger.reserve(PEOPLE, "00" * 32, index, 1, event, plan.digest())
                ledger.commit(held)
        if self.own is not None:
            ledger = Ledger(f"sqlite:///{place / CLIENTS_LEDGER}")
            epsilon = spend([plan.worst_event()] * self.own, delta=plan.delta).worst
            for name in self.parts().training:
                who = f"{PEOPLE if self.grant is not None else 'sinusoid'}/{name}"
                ledger.grant(who, unit=plan.unit, epsilon=epsilon, delta=plan.delta, approver=name)


def _sketch(_: Figure, file: Path | BytesIO, **__: object) -> None:
    empty = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
    if isinstance(file, BytesIO):
        file.write(empty)
    else:
        file.write_bytes(empty)


@lru_cache(maxsize=32)
def _assembled(tree: str) -> Parts:
    return assemble(parse_config(json.loads(tree)))


_ENCRYPTED = {"privacy.max_colluders": 0}
SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("masking", grant=12, weight=4),
        Scenario("public", pictures=True, weight=2),
        Scenario(
            "seeded",
            {"not_private.seed": 7, "privacy.rate": 0.5, "server.average_from": 2},
            weight=4,
        ),
        Scenario(
            "seeded-faults",
            {
                "not_private.seed": 8,
                "transport.drop": 0.02,
                "transport.duplicate": 0.1,
            },
            weight=2,
        ),
        Scenario(
            "adaptive",
            {
                "privacy.clip_quantile": 0.5,
                "privacy.metrics": ["query_loss"],
                "privacy.largest_loss": 4.0,
            },
            grant=6,
            prior=2,
            weight=2,
        ),
        Scenario("own-ledgers", grant=9, own=5, weight=2),
        Scenario("local", {**LOCAL, "training.rounds": 3}, grant=6, weight=2),
        Scenario("he", {**_ENCRYPTED, "secure_sum.protocol": "he", "training.rounds": 3}),
        Scenario(
            "threshold",
            {
                **_ENCRYPTED,
                "secure_sum.protocol": "threshold",
                "secure_sum.committee": 3,
                "secure_sum.committee_threshold": 2,
                "training.rounds": 2,
            },
        ),
    )
}
