"""Choosing algorithm and settings by equal trials, on clients whom no report will show.

Every candidate trains for the same rounds on the same clients and is scored in the same way
(trial_scores.py): on the same draws of the same validation clients, which are training clients of
the config that train in no candidate, or by the protected loss of all that train. The clients that
the config holds out neither train nor are scored, so that a later report on them is of clients who
took no part in the choice.

The candidates are fixed before the first one trains. On data that are not public all of their
rounds are charged by composition. Aggregator and participants see every candidate's rounds, so
that nothing less would do against them. With random stopping there is a smaller figure beside the
charge, for those who get the chosen model and nothing else (privacy/tuning.py).
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from privacy.accountant import BUDGETED, spend_counted
from privacy.errors import BudgetExceeded
from privacy.events import Event
from privacy.ledger import Ledger
from privacy.ledger_limits import spent_of
from privacy.tuning import Family, RandomStopping, selected_epsilon, uniform_below
from secure_fedmeta import __version__
from secure_fedmeta.budget import granted, open_ledger
from secure_fedmeta.config import Config, parse_config
from secure_fedmeta.errors import ConfigError
from secure_fedmeta.evaluation import Interval
from secure_fedmeta.pipeline import Parts, assemble
from secure_fedmeta.progress import Progress, Silent, Started
from secure_fedmeta.randomness import RandomBytes, Randomness
from secure_fedmeta.results import MODEL, finite, write_json
from secure_fedmeta.scoring import train_in_clear_as_planned
from secure_fedmeta.tasks import Site
from secure_fedmeta.training import run
from secure_fedmeta.trial_scores import scorer_for
from secure_fedmeta.trials import (
    Candidate,
    Trial,
    best,
    lead,
    most_events,
    settings_of,
    tree_of,
    tune_of,
    without_tune,
)
from secure_fedmeta.workspace import Workspace, name_run

TUNE, CHOSEN = "tune.json", "chosen.toml"
Status = Literal["completed", "budget", "aborted", "interrupted"]


@dataclass(frozen=True)
class TuneResult:
    """A finished search.

    Attributes:
        directory: tune.json, chosen.toml, and the candidates' runs where there are any.
        status: "completed"; "budget" where the grants ended it; "aborted" where no candidate has a
            score.
        found: the content of tune.json.
    """

    directory: Path
    status: Status
    found: dict[str, Any]


def tune(
    config: Config,
    *,
    out: Path = Path("runs"),
    progress: Progress | None = None,
    rand: RandomBytes = os.urandom,
    site: Site | None = None,
) -> TuneResult:
    """Try the config's candidates under equal effort, and write the best one as a config.

    Nothing is charged, and nothing is trained, unless all candidates fit in the grants.

    Args:
        config: the settings, with a section `[tune]`.
        out: folder in which the search gets a directory of its own.
        progress: told about stages and rounds; None is silent.
        rand: secret random bytes, for the number of trials and their candidates.
        site: where the source is read; see `assemble`.

    Raises:
        ConfigError, DataError: before anything is computed or charged.
        BudgetExceeded: the grants do not afford every candidate; nothing was charged.
        LedgerError: the ledger cannot be used.
    """
    progress = progress or Silent()
    Workspace.check(out)
    progress.stage("reading data and pricing the candidates")
    search = _Search(config, rand, site)
    search.check_affordable()
    suffix = os.urandom(3).hex()
    name = name_run(f"tune-{config.name}", moment=datetime.now(UTC), suffix=suffix)
    workspace = Workspace.create(out, name)
    progress.started(search.facts(workspace.path))
    trials: list[Trial] = []
    status: Status = "completed"
    for candidate in search.candidates:
        label = f"candidate {candidate.number} of {len(search.candidates)}"
        told = _Labelled(progress, label)
        trials.append(search.train(candidate, workspace.path, told))
        # Kept after every trial: an interruption does not lose what was paid for.
        write_json(workspace.path / TUNE, search.to_json(trials, status="interrupted", chosen=None))
        if trials[-1].status == "budget":
            status = "budget"
            break
    chosen = best(trials, lower=search.lower)
    if chosen is None and status == "completed":
        status = "aborted"
    found = search.to_json(trials, status=status, chosen=chosen)
    write_json(workspace.path / TUNE, found)
    if chosen is not None:
        text = search.chosen_config(chosen.candidate)
        (workspace.path / CHOSEN).write_text(text, encoding="utf-8")
    progress.ended(status)
    return TuneResult(workspace.path, status, found)


class _Search:
    """What is tried, on whom, and who pays for it; built and checked before anything trains."""

    def __init__(self, config: Config, rand: RandomBytes, site: Site | None) -> None:
        self._config, self._tune, self._site = config, tune_of(config), site
        self._base = assemble(without_tune(config), site=site)
        self._public = self._base.source.info.public
        self.charged = not self._public or config.ledger.population is not None
        self._scorer = scorer_for(config, self._tune, self._base, charged=self.charged)
        self.lower = self._scorer.lower
        self._stopping = self._random_stopping()
        self._pool = tuple((one, self._parts(one)) for one in settings_of(self._tune))
        order: Sequence[int] = range(len(self._pool))
        if self._stopping is not None:
            trials = self._stopping.draw(rand)
            order = [uniform_below(len(self._pool), rand) for _ in range(trials)]
        self.candidates = tuple(
            Candidate(number, *self._pool[i]) for number, i in enumerate(order, start=1)
        )

    def _random_stopping(self) -> RandomStopping | None:
        """The distribution of the number of trials, where that number is secret."""
        if self._tune.mean_trials is None:
            return None
        if not self.charged or self._config.not_private is not None:
            raise ConfigError(
                "a secret number of trials protects nobody here: the data are free, or all secrets "
                'follow from a seed; take "grid" or "random"',
                key="tune.search",
                value=self._tune.search,
            )
        return RandomStopping.with_mean(Family(self._tune.stopping), self._tune.mean_trials)

    def _parts(self, settings: Mapping[str, Any]) -> Parts:
        """The run of a candidate: as many clients may drop out as in the config's own run."""
        tree = tree_of(self._config, settings)
        validation = self._tune.validation
        tree["data"]["held_out"] = list(validation)
        tree["data"]["unused"] = [*self._base.held_out, *self._config.data.unused]
        tree["privacy"]["min_survivors"] -= len(validation)
        try:
            return assemble(parse_config(tree), site=self._site)
        except ConfigError as error:
            shown = ", ".join(f"{key} = {value!r}" for key, value in settings.items())
            raise ConfigError(
                f"{error.reason} (the candidate with {shown}; "
                f"{len(validation)} validation clients do not train)",
                key=error.key,
                value=error.value,
            ) from error

    def facts(self, directory: Path) -> Started:
        """What the one who watches is told before the first candidate."""
        rounds = sum(one.parts.plan.rounds for one in self.candidates)
        population = self._config.ledger.population if self.charged else None
        return Started(directory, rounds, population, granted=None, metric=None)

    def check_affordable(self) -> None:
        """Raises BudgetExceeded unless the grants cover every candidate to its last round."""
        if not self.charged:
            return
        ledger, population = self._ledger()
        plan = self.candidates[0].parts.plan
        grants = granted(
            ledger, population, plan, key="ledger.population", where=self._config.ledger.url
        )
        counts, rounds = ledger.counts(population), 0
        for candidate in self.candidates:
            counts = counts + most_events(candidate.parts)
            for grant in grants:
                requested = spent_of(grant, counts)
                if not requested <= grant.epsilon:
                    raise BudgetExceeded(
                        f"the grants of {population!r} afford {candidate.number - 1} of "
                        f"{len(self.candidates)} candidates of {plan.rounds} rounds: with one more "
                        f"epsilon would be {requested:.4f} of {grant.epsilon!r}; nothing was "
                        f"charged. {self._advice()}",
                        requested=requested,
                        granted=grant.epsilon,
                        affordable_rounds=rounds,
                    )
            rounds += plan.rounds

    def _advice(self) -> str:
        if self._stopping is None:
            return "Try fewer candidates, or tune on public data"
        return (
            "Ask for a larger grant or a smaller mean; drawing again until it fits would void the "
            "bound on what recipients see"
        )

    def train(self, candidate: Candidate, directory: Path, progress: Progress) -> Trial:
        """Train and score one candidate; charged through its own run unless the data are free."""
        parts, began = candidate.parts, time.monotonic()
        if not self.charged:
            progress.stage("training in clear, on public data")
            seed = parts.config.not_private
            model = train_in_clear_as_planned(
                parts,
                parts.learner,
                Randomness(None if seed is None else seed.seed),
                done=lambda index: progress.round_done({"round": index, "status": "in clear"}),
            )
            records: Sequence[Mapping[str, Any]] = ()
            trial = Trial(candidate.number, "completed", None, 0.0, None, Counter())
        else:
            folder = directory / "candidates"
            result = run(parts.config, out=folder, progress=progress, site=self._site)
            model, records = result.model, result.records
            where = str(result.directory.relative_to(directory))
            trial = Trial(candidate.number, result.status, None, 0.0, where, result.charged)
        trial = replace(trial, seconds=time.monotonic() - began)
        if trial.status != "completed":
            return trial
        progress.stage("scoring")
        return replace(trial, score=self._scorer.score(parts, model, records))

    def to_json(
        self, trials: Sequence[Trial], *, status: Status, chosen: Trial | None
    ) -> dict[str, Any]:
        """The content of tune.json."""
        info, settings = self._base.source.info, self._config
        return {
            "product_version": __version__,
            "name": settings.name,
            "status": status,
            "mode": "charged" if self.charged else "free: the data are declared public",
            "search": self._tune.search,
            "looked_at": {
                "training_clients": list(self.candidates[0].parts.training),
                "validation_clients": list(self._tune.validation),
                "validation_is_public": self._who_says_public(),
            },
            "not_looked_at": [*self._base.held_out, *settings.data.unused],
            "effort": {
                "candidates": len(self.candidates),
                "rounds": settings.training.rounds,
                "clients": len(self.candidates[0].parts.training),
                "support": info.k_support,
                **self._draws(),
            },
            "scores": self._tune.scores,
            "metric": self._scorer.metric,
            "better": "lower" if self.lower else "higher",
            "candidates": [self._row(trial) for trial in trials],
            "chosen": None if chosen is None else chosen.candidate,
            "lead": None if chosen is None else lead(chosen, trials, lower=self.lower),
            "config": None if chosen is None else CHOSEN,
            "charge": self._charge(trials) if self.charged else None,
            "selection": self._selection(chosen) if status == "completed" else None,
        }

    def _who_says_public(self) -> str | None:
        if not self._tune.validation:
            return None
        return "by its source" if self._public else "by the config"

    def _draws(self) -> dict[str, int | None]:
        """What a score is taken over: draws of validation clients, or a candidate's last rounds."""
        evaluation, last = self._config.evaluation, self._scorer.rounds
        return {
            "repeats": evaluation.repeats if last is None else None,
            "adapt_steps": evaluation.adapt_steps
            if last is None
            else self._config.learner.inner_steps,
            "score_rounds": last,
        }

    def _selection(self, chosen: Trial | None) -> dict[str, Any] | None:
        """What the recipients of the chosen model alone see of a unit; None without a bound.

        A search that the grants cut short has none: its trials are fewer than were drawn.
        """
        if self._stopping is None or chosen is None or chosen.run is None:
            return None
        delta = self._base.plan.delta
        pool = [most_events(parts) for _, parts in self._pool]
        return {
            "stopping": self._stopping.family.value,
            "mean_trials": self._tune.mean_trials,
            "delta": delta,
            "epsilon": finite(selected_epsilon(pool, self._stopping, delta=delta)),
            "model": f"{chosen.run}/{MODEL}",
        }

    def _row(self, trial: Trial) -> dict[str, Any]:
        candidate = self.candidates[trial.candidate - 1]
        score = trial.score
        interval = Interval.over({}) if score is None else score.interval
        clients = {} if score is None else score.per_client
        plan = candidate.parts.plan
        own = spend_counted(trial.events, delta=plan.delta).worst
        return {
            "number": trial.candidate,
            "settings": dict(candidate.settings),
            "status": trial.status,
            "score": finite(interval.mean),
            "ci95": finite(interval.ci95),
            "per_client": {name: finite(value) for name, value in clients.items()},
            "seconds": round(trial.seconds, 3),
            "run": trial.run,
            "charged_rounds": sum(trial.events.values()),
            "epsilon": own,
        }

    def _charge(self, trials: Sequence[Trial]) -> dict[str, Any]:
        """What the search cost the population: all trials together, and with all before them."""
        ledger, population = self._ledger()
        plan = self.candidates[0].parts.plan
        grant = granted(
            ledger, population, plan, key="ledger.population", where=self._config.ledger.url
        )[0]
        total: Counter[Event] = Counter()
        for trial in trials:
            total = total + trial.events
        spent = spend_counted(total, delta=plan.delta, order=grant.order)
        return {
            "population": population,
            "unit": plan.unit.value,
            "delta": plan.delta,
            "rounds": sum(total.values()),
            "epsilon": {name.value: spent.adversaries[name].claimed for name in BUDGETED},
            "population_spent": spent_of(grant, ledger.counts(population)),
            "granted": grant.epsilon,
        }

    def chosen_config(self, number: int) -> str:
        """The chosen candidate as a config to run: all training clients, and no `[tune]`."""
        settings = self.candidates[number - 1].settings
        # Neither how many candidates there were nor which this is: the number may be secret.
        judges = ", ".join(self._tune.validation) or "protected losses of its training tasks"
        head = f"# Chosen by `fedmeta tune` on {judges}.\n"
        return head + parse_config(tree_of(self._config, settings)).to_toml()

    def _ledger(self) -> tuple[Ledger, str]:
        population = self._config.ledger.population
        if population is None:
            raise ConfigError(
                "name the population whose privacy budget the candidates spend; only data that "
                "are declared public may go without",
                key="ledger.population",
            )
        return open_ledger(self._config.ledger.url), population


class _Labelled:
    """Names the candidate in front of every stage; the search alone starts and ends."""

    def __init__(self, inner: Progress, label: str) -> None:
        self._inner, self._label = inner, label

    def started(self, facts: Started) -> None:
        """A candidate's run is no start of the search."""

    def ended(self, status: str) -> None:
        """Nor its end."""

    def stage(self, text: str) -> None:
        """Pass on, with the candidate's number."""
        self._inner.stage(f"{self._label}: {text}")

    def round_done(self, record: Mapping[str, Any]) -> None:
        """Pass on."""
        self._inner.round_done(record)
