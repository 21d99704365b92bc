"""What a report says of noise at the client, where it differs from noise in shares of a sum."""

from __future__ import annotations

from privacy.accountant import Adversary
from privacy.local import batch_of
from privacy.plan import PrivacyPlan

_SAME = (
    "each client's own noise stands in full against everyone, so the figure is that of the others"
)
ADVERSARY_WORDS: dict[Adversary, str] = {
    Adversary.AGGREGATOR: f"the aggregator, which sees every opened sum; {_SAME}",
    Adversary.COLLUDERS: (
        f"the aggregator together with contributing clients, however many; {_SAME}"
    ),
    Adversary.PARTICIPANTS: (
        f"other clients, however many, who see every global model; {_SAME}; a participant's own "
        "data are not protected from it"
    ),
    Adversary.RECIPIENTS: (
        "whoever gets the final model; no credit is taken for the rounds that they do not see"
    ),
    Adversary.BROKEN_SUM: (
        "whoever reads one client's message alone, as if the secure sum had failed: the message "
        "is as private as the claim says"
    ),
}


def mechanism(plan: PrivacyPlan) -> str:
    """What ran, in words."""
    return (
        f"in each of {plan.local_steps} steps of a round every client clips each task's vector to "
        f"L2 norm {plan.clip:g}, rounds it to integers of at most {plan.cap} steps per coordinate "
        f"and clips it again to {plan.l2} steps, adds Gaussian noise of variance "
        f"{plan.share_variance:.6g} steps^2, rounded to integers, to their sum, and divides by the "
        f"public constant {batch_of(plan):g}; its message is how far {plan.local_steps} such "
        f"steps of size {plan.local_lr:g} took it; the opened sum is divided by "
        f"{plan.clients} clients"
    )


def sampler(plan: PrivacyPlan) -> str:
    """Who takes part, in words."""
    if plan.rate == 1.0:
        return (
            "every task of every client takes part in every step; nothing is sampled and no "
            "amplification is claimed"
        )
    return (
        f"each task takes part in a step by an independent secret coin of rate {plan.rate:g}, "
        "thrown anew in every step; empty draws are noise, and steps, like any other"
    )


def caveats(plan: PrivacyPlan, *, rdp_only: bool) -> list[str]:
    """What to know about the claim."""
    if rdp_only:
        claim = (
            "The claim is the figure named 'rdp', a proved bound at the order that the grant "
            "declares."
        )
    elif plan.relation == "replace_one":
        claim = (
            "The claim is the exact figure without sampling, and the privacy loss distribution "
            "('pld') of a replaced unit with it."
        )
    else:
        claim = (
            "The claim is the exact figure without sampling, and with it the upper end of Opacus' "
            "'prv' (Gopi, Lee, Wutschitz 2021); 'pld' and 'rdp' stand beside it."
        )
    claim += (
        " It is for a Gaussian, and the noise is a Gaussian rounded to the integers of the sum it "
        "is added to, which shows no more."
    )
    charged = (
        "All steps of all rounds are charged together, before clients compute anything: a round "
        "that fails, and a client that drops out of it, have been charged like any other."
    )
    alone = (
        "The noise of each client is sized for itself. The secure sum adds no privacy to the claim "
        "and no noise to the sum; with it, nobody sees single messages either."
    )
    parallel = (
        "Each unit lives in one client, so that what all clients do in a round is charged once. "
        "A person with units in several clients has to be counted in person_units."
    )
    found = [claim, charged, alone, parallel]
    if plan.rate < 1.0:
        coins = (
            "Sampling lowers the figures only against those who do not see the coins: a client "
            "computes every task in every step, and must show nothing that is computed from the "
            "drawn ones alone."
        )
        found.append(coins)
    return found
