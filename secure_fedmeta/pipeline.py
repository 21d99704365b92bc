"""From a config to the parties of a run: everything is checked here, before anything is charged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from crypto.errors import TermsRefused
from crypto.keys import Identity, Member, Roster
from crypto.ring import Ring
from crypto.secure_sum import SECURE_SUMS, Committee, SecureSum, Sharing
from privacy.plan import PrivacyPlan
from privacy.unit import Unit
from secure_fedmeta.charge import Charges, Uncounted
from secure_fedmeta.client import Client, Holdings, MakeClient
from secure_fedmeta.cohort import divide
from secure_fedmeta.config import Config
from secure_fedmeta.errors import ConfigError, DataError, unknown_name
from secure_fedmeta.losses import Loss
from secure_fedmeta.meta import Learner, build_learner
from secure_fedmeta.models import build_model, check_module
from secure_fedmeta.officer import Officer
from secure_fedmeta.party import Party
from secure_fedmeta.planned import plan_for
from secure_fedmeta.randomness import Randomness, Streams
from secure_fedmeta.server_opt import ServerOptimiser
from secure_fedmeta.setting import Setting, ring_for
from secure_fedmeta.simulation import CohortWork, work_for
from secure_fedmeta.tasks import Site, TaskSource, build_source
from secure_fedmeta.transport.registry import TRANSPORTS

AGGREGATOR = "aggregator"


@dataclass(frozen=True)
class Parts:
    """What a config stands for, with no secrets in it.

    Attributes:
        config: the config itself.
        source: where tasks come from.
        training: names of the clients that train, in roster order.
        held_out: names of the clients that are only scored.
        module: the network with its public initial weights.
        loss: loss name or the caller's own.
        learner: the configured algorithm.
        plan: the privacy plan.
        protocol: the secure sum.
        ring: integers with proved headroom for the plan's sums.
        sharing: with how many clients secrets are shared, and how many recover one.
        committee: how many officers the roster names, and how many of them open a sum.
        optimiser: the server's rule.
    """

    config: Config
    source: TaskSource
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    module: nn.Module
    loss: str | Loss
    learner: Learner
    plan: PrivacyPlan
    protocol: SecureSum
    ring: Ring
    sharing: Sharing
    committee: Committee
    optimiser: ServerOptimiser

    def initial(self) -> torch.Tensor:
        """The public initial parameters `[d] float32`."""
        return self.learner.initial(self.module)

    def plan_for(self, learner: Learner) -> PrivacyPlan:
        """The plan under which another learner's vectors would be summed in this run.

        It has the same terms and target; only the number of coordinates, and what follows from
        it, may differ.
        """
        if learner.spec.size == self.plan.parameters:
            return self.plan
        return plan_for(self.config, self.source, self.training, learner.spec)

    def learner_like(self, algorithm: str, *, inner_steps: int, inner_lr: float) -> Learner:
        """Another learner on the same network and loss."""
        compute = self.config.compute
        return build_learner(
            algorithm,
            self.module,
            self.loss,
            inner_steps=inner_steps,
            inner_lr=inner_lr,
            rate_scale=self.config.learner.rate_scale,
            memory_mb=compute.memory_mb,
            device=compute.device,
        )


def assemble(
    config: Config,
    *,
    module: nn.Module | None = None,
    loss: str | Loss | None = None,
    site: Site | None = None,
) -> Parts:
    """Build and check everything that a run needs, apart from secrets.

    Args:
        config: the settings.
        module: the caller's own network; None builds `config.model`.
        loss: the caller's own loss; None takes the source's.
        site: where the source is read; None: the current folder, with this user's block secret.

    Raises:
        ConfigError: an unknown name or a combination that cannot work; names key and value.
        DataError: the data break what their source declares.
    """
    protocol = _protocol(config)
    TRANSPORTS.get(config.transport.name)
    source = build_source(config.data.source, config.data.options, _site(config, site or Site()))
    training, held_out = divide(config, source)
    _check_unit(config, source)
    network = _network(config, source) if module is None else module
    check_module(network)
    task_loss = source.info.loss if loss is None else loss
    learner = build_learner(
        config.learner.algorithm,
        network,
        task_loss,
        inner_steps=config.learner.inner_steps,
        inner_lr=config.learner.inner_lr,
        rate_scale=config.learner.rate_scale,
        memory_mb=config.compute.memory_mb,
        device=config.compute.device,
    )
    plan = plan_for(config, source, training, learner.spec)
    ring = ring_for(plan)
    sharing = _sharing(config, plan, protocol)
    committee = _committee(config, protocol)
    optimiser = ServerOptimiser(
        config.server.optimiser, config.server.lr, average_from=config.server.average_from
    )
    return Parts(
        config=config,
        source=source,
        training=training,
        held_out=held_out,
        module=network,
        loss=task_loss,
        learner=learner,
        plan=plan,
        protocol=protocol,
        ring=ring,
        sharing=sharing,
        committee=committee,
        optimiser=optimiser,
    )


@dataclass(frozen=True)
class Parties:
    """The parties of a simulated run, each with secrets of its own.

    Attributes:
        setting: what they agree on.
        aggregator: the aggregator's signing key.
        clients: roster index -> client.
        officers: roster index -> officer, where the secure sum has any.
    """

    setting: Setting
    aggregator: Identity
    clients: dict[int, Client]
    officers: dict[int, Officer]

    @property
    def endpoints(self) -> dict[int, Party]:
        """Everybody whom the aggregator talks to, by roster index."""
        return {**self.clients, **self.officers}


def found_parties(
    parts: Parts,
    run: bytes,
    randomness: Randomness,
    *,
    log_key: str,
    charges: Charges = None,
    founding: Streams | None = None,
    contributions: Mapping[int, int] | None = None,
    make_client: MakeClient = Client,
) -> Parties:
    """Give every party its keys and its own randomness.

    Args:
        parts: the checked run.
        run: 32 bytes that name the run.
        randomness: the operating system's, or a flagged seed.
        log_key: verifying key of the run's log.
        charges: client name -> where it charges its contributions; none: clients keep no ledger.
        founding: gives identities and drawing keys; None: `randomness` does, and they end with the
            process.
        contributions: roster index -> how often that client contributed to the run before.
        make_client: what makes each client.

    Raises:
        ConfigError: the secure sum does not keep its promises under these thresholds.
        DataError: a client has no task, or more than its source declares.
    """
    founding = randomness if founding is None else founding
    before = contributions or {}
    aggregator = Identity.generate(founding.stream(AGGREGATOR))
    streams = {name: founding.stream(f"client/{name}") for name in parts.training}
    identities = {name: Identity.generate(stream) for name, stream in streams.items()}
    officers_named = tuple(f"officer-{k}" for k in range(1, parts.committee.members + 1))
    keepers = {name: Identity.generate(founding.stream(name)) for name in officers_named}
    keys = {name: stream(32) for name, stream in streams.items()}
    work = work_for(parts.plan, parts.learner, parts.source, keys, loss=parts.loss)
    _check_units(work, parts)
    roster = Roster(
        aggregator.public,
        tuple(Member(name, identity.public) for name, identity in identities.items()),
        tuple(Member(name, identity.public) for name, identity in keepers.items()),
    )
    setting = Setting(
        run=run,
        config_digest=parts.config.digest(),
        plan=parts.plan,
        roster=roster,
        log_key=log_key,
        spec=parts.learner.spec,
        protocol=parts.protocol,
        ring=parts.ring,
        sharing=parts.sharing,
        committee=parts.committee,
    )
    clients = {
        index: make_client(
            setting,
            Holdings(
                index=index,
                identity=identities[name],
                work=work,
                noise=randomness.rounds(f"noise/{name}"),
                rand=randomness.stream(f"client/{name}/sum"),
                charge=Uncounted() if charges is None else charges[name],
                contributions=before.get(index, 0),
            ),
        )
        for index, name in enumerate(parts.training, start=1)
    }
    try:
        digest = setting.handout_digest(parts.initial(), parts.plan.clip)
        parts.protocol.check(setting.terms(round_index=1, attempt=1, model_digest=digest))
    except TermsRefused as error:
        raise ConfigError(str(error), key="secure_sum") from error
    officers = {
        index: Officer(
            setting,
            index=index,
            identity=keepers[name],
            rand=randomness.stream(f"{name}/sum"),
        )
        for index, name in zip(roster.officer_indices, keepers, strict=True)
    }
    return Parties(setting, aggregator, clients, officers)


def _site(config: Config, site: Site) -> Site:
    """The site; under a seed, which replaces every secret, with one that follows from it."""
    if config.not_private is None:
        return site
    secret = Randomness(config.not_private.seed).stream("blocks")(32)
    return replace(site, block_secret=lambda: secret)


def check_holdings(parts: Parts) -> None:
    """Refuse what a run refuses when it makes its clients; nothing is drawn.

    Raises:
        ConfigError: with unit user, two clients hold tasks of one user.
        DataError: a client has no task, or more than its source declares.
    """
    keys = dict.fromkeys(parts.training, bytes(32))
    work = work_for(parts.plan, parts.learner, parts.source, keys, loss=parts.loss)
    _check_units(work, parts)


def _protocol(config: Config) -> SecureSum:
    name = config.secure_sum.protocol
    if name not in SECURE_SUMS:
        raise unknown_name("secure sum", name, SECURE_SUMS, key="secure_sum.protocol")
    protocol = SECURE_SUMS[name]
    if not protocol.capabilities().hides_updates and not config.secure_sum.allow_insecure:
        raise ConfigError(
            "this protocol shows every update to the aggregator; take 'masking', or set "
            "secure_sum.allow_insecure = true for an experiment on public data",
            key="secure_sum.protocol",
            value=name,
        )
    return protocol


def _check_unit(config: Config, source: TaskSource) -> None:
    allowed = source.info.units
    if config.privacy.unit not in allowed:
        reason = source.info.lacking.get(config.privacy.unit)
        raise ConfigError(
            f"source {source.name!r} can promise only {', '.join(sorted(allowed))}"
            + (f": {reason}" if reason else ""),
            key="privacy.unit",
            value=config.privacy.unit,
        )


def _check_units(work: CohortWork, parts: Parts) -> None:
    """What a client holds is within the declared bound; a client itself is one unit."""
    unit, most = parts.plan.unit, parts.plan.max_units_per_client
    for name in parts.training if unit is not Unit.CLIENT else ():
        if work.units(name) > most:
            raise DataError(
                f"client {name!r} has {work.units(name)} tasks, more than the "
                f"{most} that source {parts.source.name!r} declares"
            )
    if unit is Unit.USER and (sharing := work.clients_that_share_a_user()):
        raise ConfigError(
            f"clients {sharing[0]!r} and {sharing[1]!r} hold tasks of the same user, who would "
            "have two coins and be clipped twice; allowed: users who live in one client each",
            key="privacy.unit",
            value="user",
        )


def _network(config: Config, source: TaskSource) -> nn.Module:
    return build_model(
        config.model.name,
        source.info.input_dim,
        source.info.output_dim,
        config.model.hidden,
        seed=config.model.init_seed,
    )


def _sharing(config: Config, plan: PrivacyPlan, protocol: SecureSum) -> Sharing:
    """What the protocol takes, with the threshold that the config asks for if it does."""
    threshold = config.secure_sum.threshold
    if threshold is not None and threshold > plan.clients:
        raise ConfigError(
            f"only {plan.clients} clients train", key="secure_sum.threshold", value=threshold
        )
    if threshold is not None and threshold > plan.min_survivors:
        raise ConfigError(
            f"secure_sum.threshold asks for {threshold} shares; set {threshold} or more",
            key="privacy.min_survivors",
            value=plan.min_survivors,
        )
    try:
        sharing = protocol.sharing(plan.cohort_size, plan.max_colluders, plan.min_survivors)
    except TermsRefused as error:
        raise ConfigError(f"{protocol.name}: {error}", key="secure_sum") from error
    return sharing if threshold is None else replace(sharing, threshold=threshold)


def _committee(config: Config, protocol: SecureSum) -> Committee:
    wanted = config.secure_sum
    try:
        return protocol.committee(wanted.committee, wanted.committee_threshold)
    except TermsRefused as error:
        raise ConfigError(str(error), key="secure_sum.committee_threshold") from error
