"""What a run's privacy budget came to, in figures and in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from privacy import report_local
from privacy.accountant import Adversary, AdversarySpend, spend_with_reference
from privacy.compression import Kind
from privacy.events import Event, Mechanism
from privacy.local import LOCAL
from privacy.plan import PrivacyPlan
from privacy.unit import PLAIN_WORDS, Unit

ADVERSARY_WORDS: dict[Adversary, str] = {
    Adversary.AGGREGATOR: "the aggregator, which sees every opened sum",
    Adversary.COLLUDERS: (
        "the aggregator together with some contributing clients (at most {colluders}), who "
        "subtract their own noise"
    ),
    Adversary.PARTICIPANTS: (
        "contributing clients (at most {colluders}, and always each one by itself) without the "
        "aggregator; they see every global model and subtract their own noise, so this is never "
        "less than with it"
    ),
    Adversary.RECIPIENTS: (
        "whoever gets the final model; no credit is taken for the rounds that they do not see"
    ),
    Adversary.BROKEN_SUM: (
        "whoever reads one client's message alone, as if the secure sum had failed: only that "
        "client's own noise protects it"
    ),
}

UNPROTECTED = (
    "which clients took part in each round, when, and with how many bytes",
    "the configuration, the plan and every public constant in it, the clip bound included",
    "how many rounds were completed or aborted, and why",
)
"""What the mechanism itself leaves in the open, whatever else a run publishes."""


def budget_report(
    plan: PrivacyPlan,
    events: Sequence[Event],
    *,
    grant: float | None,
    order: int | None = None,
    unprotected: Sequence[str] = (),
) -> dict[str, Any]:
    """The budget part of a report, as plain data that JSON can hold (infinity becomes None).

    Args:
        plan: the plan that the run followed.
        events: every event charged, of aborted rounds too.
        grant: epsilon granted to the population at the plan's delta; None where none was.
        order: the Renyi order that the grant declares; None: a grant for plans fixed beforehand.
        unprotected: what the caller releases without protection, for the list of such things.

    Returns:
        "unit_in_words", "relation", "mechanism", "sampler", "events", "target_epsilon",
        "granted_epsilon", "spent_epsilon" (worst budgeted adversary), "within_grant",
        "adversaries" (a list with name, description, epsilon per accountant, claim, record,
        person), "sensitivity", "caveats", "unprotected", "plan" and "plan_digest".

    Raises:
        EventRefused: events that cannot be composed.
    """
    spent = spend_with_reference(events, delta=plan.delta, order=order)
    worst = spent.worst
    return {
        "unit_in_words": PLAIN_WORDS[plan.unit],
        "relation": plan.relation.value,
        "mechanism": _mechanism(plan),
        "sampler": _sampler(plan),
        "events": spent.events,
        "target_epsilon": plan.epsilon,
        "granted_epsilon": grant,
        "spent_epsilon": _finite(worst),
        "within_grant": None if grant is None else worst <= grant,
        "adversaries": [
            _adversary(plan, adversary, figures) for adversary, figures in spent.adversaries.items()
        ],
        "sensitivity": {
            "l2_steps": plan.l2,
            "l1_steps": plan.l1,
            "steps_per_one": plan.scale,
            "clip": plan.clip,
        },
        "caveats": _caveats(plan, order),
        "unprotected": [*UNPROTECTED, *unprotected],
        "plan": plan.to_json(),
        "plan_digest": plan.digest().hex(),
    }


_NOISE = {
    Mechanism.SKELLAM: ("Skellam", "Agarwal, Kairouz, Liu 2021"),
    Mechanism.DISCRETE_GAUSSIAN: ("discrete Gaussian", "Kairouz, Liu, Steinke 2021"),
}
"""Name of the noise, and where its bound is from."""

_VECTOR = {
    Unit.RECORD: "each task's vector",
    Unit.TASK: "each task's vector",
    Unit.USER: "the sum of each user's vectors",
    Unit.CLIENT: "each client's final vector",
}


def _mechanism(plan: PrivacyPlan) -> str:
    if plan.noise == LOCAL:
        return report_local.mechanism(plan)
    apart = plan.tasks_per_user
    vector = _VECTOR[plan.unit] if apart is None else f"each vector of a user's {apart} tasks"
    whole = "" if apart is None else f", {plan.l2} steps for all of one user"
    return (
        f"{vector} is clipped to L2 norm {_bound(plan)},{_map(plan)}{_behind(plan)} rounded to "
        "integers "
        f"of at most {plan.cap} steps per coordinate and clipped again to "
        f"{plan.l2 // (apart or 1)} steps{whole}; each client adds {_NOISE[plan.mechanism][0]} "
        f"noise of variance {plan.share_variance:.6g} steps^2 to its sum; the opened sum is "
        f"divided by the public constant {plan.expected_units}"
    )


def _bound(plan: PrivacyPlan) -> str:
    rule = plan.extras.adaptive_clip
    if rule is None:
        return f"{plan.clip:g}"
    return (
        f"{plan.clip:g} at first and scaled to the same integers at each later bound, which "
        f"follows the noised part of units within it towards {rule.quantile:g}"
    )


def _behind(plan: PrivacyPlan) -> str:
    """The coordinates of extras in words, for the place after the map."""
    if plan.extras.count == 0:
        return ""
    names = [f"{metric.name} cut to {metric.largest:g}" for metric in plan.extras.metrics]
    names += ["whether it was within the bound"] if plan.extras.adaptive_clip is not None else []
    return f" followed by {len(names)} coordinates of its own ({', '.join(names)}),"


def _sampler(plan: PrivacyPlan) -> str:
    if plan.noise == LOCAL:
        return report_local.sampler(plan)
    if plan.rate < 1.0:
        return (
            f"each {plan.unit} takes part in a round by an independent secret coin of rate "
            f"{plan.rate:g}; every client uploads in every round, drawn or not, and the "
            "amplification that is claimed holds as long as nothing shows the coins"
        )
    if plan.max_participations is not None:
        return (
            f"who takes part is seen and nothing is amplified; a client takes part in at most "
            f"{plan.max_participations} rounds, and the dearest of those are charged"
        )
    return (
        "every unit of every contributing client takes part in every round; nothing is "
        "sampled and no amplification is claimed"
    )


def _map(plan: PrivacyPlan) -> str:
    """The public linear map in words, for the place after the first clip."""
    words = " rotated by public random signs and transforms," if plan.compression.rotate else ""
    if plan.compression.kind is Kind.SUBSET:
        words += (
            f" reduced to {plan.dimension} of {plan.parameters} coordinates, which a public seed "
            "draws anew in each round,"
        )
    elif plan.compression.kind is Kind.LOW_RANK:
        words += (
            f" reduced to {plan.dimension} of {plan.parameters} coordinates, the same in all "
            "rounds,"
        )
    return words


def _adversary(
    plan: PrivacyPlan, adversary: Adversary, figures: AdversarySpend
) -> dict[str, object]:
    words = report_local.ADVERSARY_WORDS if plan.noise == LOCAL else ADVERSARY_WORDS
    return {
        "name": adversary.value,
        "description": words[adversary].format(colluders=plan.max_colluders),
        "epsilon": {name: _finite(value) for name, value in figures.epsilon.items()},
        "claim": figures.claim,
        "record": _finite(figures.record),
        "person": _finite(figures.person),
    }


def _caveats(plan: PrivacyPlan, order: int | None) -> list[str]:
    one_unit = (
        f"The claim is about one {plan.unit}. The figures for one record replaced and for one "
        f"person who makes up {plan.person_units} whole units stand beside it; neither is better "
        "protected. "
        f"A person with records in {plan.person_units} units that others share counts as "
        f"{2 * plan.person_units} whole units: the units stay, and each of their vectors may move "
        "anywhere."
    )
    domain = (
        f"The claim is for data that the run accepts: a client with more than "
        f"{plan.max_units_per_client} units, or with none, ends it before the first round, and "
        "that shows."
    )
    arithmetic = (
        "Each unit's vector is taken to depend on that unit and the model alone. It is computed in "
        "batches in 32-bit floating point, whose shape is public; kernels are taken to round a row "
        "by its own numbers, the shape and its place."
    )
    own_data = (
        "A participant's own data are not protected from that participant, who also always knows "
        "the noise that it added: its share never counts against it."
    )
    fixed = (
        "The figures hold for settings fixed before the first round. A figure given while a run "
        "goes on is an estimate; stopping early refunds nothing; settings chosen from the "
        "results of earlier runs on the same people are not covered by adding the figures up."
    )
    if order is not None:
        fixed = (
            f"Everything is added up at Renyi order {order}, which the grant declared before "
            "anything was charged: a filter. The limit holds for settings chosen from the results "
            "of earlier rounds and runs too, as long as each was charged before it released; "
            "stopping early refunds nothing."
        )
    sampler = (
        "The noise is drawn from AES-256 key streams that each client keys from its operating "
        "system; the sampler takes logarithms of probabilities in double precision, and their "
        "rounding is not part of the bound."
    )
    common = [one_unit, own_data, fixed, domain, sampler, arithmetic]
    if plan.noise == LOCAL:
        return [*report_local.caveats(plan, rdp_only=order is not None), *common]
    return [*_caveats_of_shares(plan), *common]


def _caveats_of_shares(plan: PrivacyPlan) -> list[str]:
    """What holds for noise in shares of a sum alone."""
    claim = (
        f"The claim is the figure named 'rdp', a proved bound ({_NOISE[plan.mechanism][1]}) of "
        "the integer mechanism that ran. The figures named gaussian_reference are those of "
        "Gaussian noise of the same relative size, for comparison only."
    )
    drops = (
        "Figures of the noise that was there, with more contributors than the fewest permitted, "
        "assume that which clients drop out does not depend on what earlier rounds released. The "
        "target, which is for the fewest in every round, does not assume it."
    )
    sized = (
        f"Noise is sized for {plan.min_survivors} contributing clients of which "
        f"{plan.max_colluders} collude; a round with fewer is not opened."
    )
    caveats = [claim, drops, sized]
    if plan.rate < 1.0:
        coins = (
            "Sampling lowers the figures only against those who do not see the coins: every client "
            "has to upload in every round, at a time that does not tell how many of its units were "
            "drawn, and must show nothing that is computed from the drawn units alone. Whether a "
            "client drops out must not depend on its coins."
        )
        caveats.append(coins)
    if plan.max_participations is not None:
        turns = (
            f"Charging {plan.max_participations} rounds takes for granted that each client counts "
            "and refuses to take part in more, over everything that its population is charged."
        )
        caveats.append(turns)
    if plan.extras.adaptive_clip is not None:
        moving = (
            "The clip bound of a round follows from earlier releases. Sensitivity, noise and "
            "charge are those of the plan whatever it is, also if the aggregator lies about it, so "
            "that the figures hold as for settings fixed before the first round."
        )
        caveats.append(moving)
    if plan.max_colluders == 0:
        no_colluders = (
            "The plan assumes that no contributing client works with the aggregator or with "
            "another client: every one that does lowers the noise by its share."
        )
        caveats.append(no_colluders)
    return caveats


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
