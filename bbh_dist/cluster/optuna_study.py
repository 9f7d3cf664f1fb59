"""An Optuna study driven by ask and tell, in which every trial is in its true state at all times.

RUNNING: on the cluster now. COMPLETE: ran to its end. PRUNED: stopped early, no value. FAIL: with a reason.
WAITING: was cut off with its driver and will be run again under the same number with the same parameters.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.cluster.journal import JOURNAL, open_journal
from bbh_dist.cluster.samplers import build_sampler
from bbh_dist.config import ConfigError, Experiment, Mistake, Parameter, SearchSpace, override
from bbh_dist.config.space import parents_first
from bbh_dist.report import TrialRow

_ATTEMPTS = 50


class OptunaJobs:
    """Proposes a search space's trials and keeps the study's record of them in `optuna.journal` of a folder."""

    def __init__(self, space: SearchSpace, folder: Path, *, begun: bool = False) -> None:
        """Go on with what the journal has; a study that has `begun` must have one.

        Raises:
            ConfigError: as `open_journal`, or the journal is another study's.
        """
        optuna.logging.set_verbosity(logging.WARNING)
        self.space = space
        self._names = parents_first(space.search)
        # Multi-objective TPE and constant_liar are marked experimental; a warning each would greet every user.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = open_journal(folder, begun=begun)
            names = [study.study_name for study in storage.get_all_studies()]
            if names != [folder.name] and (names or begun):
                rule = f"must hold the study {folder.name} and no other"
                raise ConfigError(Mistake(str(folder / JOURNAL), rule, got=", ".join(names) or "none"))
            self.study = optuna.create_study(
                study_name=folder.name,
                storage=storage,
                directions=[objective.direction for objective in space.objectives],
                # A resumed study must not repeat the proposals of its first start; those that were cut off count.
                sampler=build_sampler(space, derived=_proposed(storage)),
                load_if_exists=True,
            )
            self.study.set_metric_names([objective.metric for objective in space.objectives])
        self._requeue()
        self._asked: dict[str, optuna.Trial] = {}

    @property
    def remaining(self) -> int:
        """Trials that are still to be run until the study has what its space asks for."""
        return max(0, self.space.trials - self.counted)

    @property
    def counted(self) -> int:
        """Trials that ended; proposals that made no valid experiment are none."""
        return sum(trial.state.is_finished() and not trial.user_attrs.get("invalid") for trial in self.study.trials)

    def next_job(self) -> Job:
        """The next trial: one that was cut off, else a new proposal.

        A proposal whose values do not make a valid experiment together is a failed trial that does not count, and
        another is asked for.
        """
        mistakes: Sequence[Mistake] = ()
        for _ in range(_ATTEMPTS):
            trial = self.study.ask()
            chosen = self._suggest(trial)
            try:
                experiment = override(self.space.base, chosen)
            except ConfigError as error:
                mistakes = error.mistakes
                trial.set_user_attr("reason", str(error))
                trial.set_user_attr("invalid", True)
                self.study.tell(trial, state=TrialState.FAIL)
                continue
            job = Job(f"trial-{trial.number}", experiment, trial.number, chosen)
            self._asked[job.name] = trial
            return job
        raise ConfigError(mistakes)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Tell Optuna how a trial ended."""
        trial = self._asked.pop(job.name)
        trial.set_user_attr("seconds", outcome.seconds)
        trial.set_user_attr("metrics", outcome.metrics)
        if self.space.scheduler.name != "none":
            metric = self.space.pruning_metric
            trial.set_user_attr(
                "curve", [[epoch["epoch"], epoch[metric]] for epoch in outcome.epochs if metric in epoch]
            )
        if outcome.reason is not None:
            trial.set_user_attr("reason", outcome.reason)
        if outcome.state == "COMPLETE":
            self.study.tell(trial, [outcome.metrics[objective.metric] for objective in self.space.objectives])
        else:
            self.study.tell(trial, state=TrialState[outcome.state])

    def interrupt(self) -> None:
        """Put the trials that run back to WAITING."""
        self._asked.clear()
        self._requeue()

    def rows(self) -> list[TrialRow]:
        """All trials that ended, as figures, tables and JSON show them."""
        return [self._row(trial) for trial in self.study.trials if trial.state.is_finished()]

    def curves(self) -> list[dict[int, float]]:
        """Of trials that ended, by epoch, the metric that decides what is pruned.

        None where none is complete: those that pruned the others were cut off, and are not to be pruned by them now, or
        no trial would come to its end.
        """
        ended = [trial for trial in self.study.trials if trial.state.is_finished()]
        if not any(trial.state == TrialState.COMPLETE for trial in ended):
            return []
        curves = (trial.user_attrs.get("curve", []) for trial in ended)
        return [{int(epoch): value for epoch, value in curve} for curve in curves if curve]

    def experiment(self, number: int) -> Experiment:
        """The experiment of a trial."""
        return override(self.space.base, self._values(self.study.trials[number]))

    def params(self, number: int) -> dict[str, Any]:
        """The searched values of a trial."""
        return self._values(self.study.trials[number])

    def values(self, number: int) -> dict[str, float]:
        """The objectives of a trial that is complete."""
        return {
            each.metric: value
            for each, value in zip(self.space.objectives, self.study.trials[number].values, strict=True)
        }

    def reasons(self) -> str:
        """Why trials failed, each reason once."""
        reasons = [trial.user_attrs.get("reason") for trial in self.study.trials if trial.state == TrialState.FAIL]
        return "; ".join(dict.fromkeys(reason for reason in reasons if reason)) or "all were pruned"

    def importances(self) -> dict[str, dict[str, float]]:
        """Share of each objective's variance that each searched key explains (fANOVA; Hutter et al. 2014).

        Empty where fewer than 8 trials are complete, or nothing varies.
        """
        complete = [trial for trial in self.study.trials if trial.state == TrialState.COMPLETE]
        if len(complete) < 8:
            return {}
        result = {}
        for index, objective in enumerate(self.space.objectives):
            try:
                result[objective.metric] = optuna.importance.get_param_importances(
                    self.study,
                    evaluator=optuna.importance.FanovaImportanceEvaluator(seed=self.space.sampler.seed),
                    target=_objective(index),
                )
            except (ValueError, RuntimeError):  # no key stands in every trial, or all values are equal
                continue
        return result

    def _requeue(self) -> None:
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for name in self._names:
            if self.space.active(name, chosen):
                parameter = self.space.search[name]
                chosen[name] = _value(parameter, trial._suggest(name, distribution(parameter)))
        return chosen

    def _values(self, trial: FrozenTrial) -> dict[str, Any]:
        return {name: _value(self.space.search[name], value) for name, value in trial.params.items()}

    def _row(self, trial: FrozenTrial) -> TrialRow:
        names = [objective.metric for objective in self.space.objectives]
        values = dict(zip(names, trial.values, strict=True)) if trial.state == TrialState.COMPLETE else None
        return TrialRow(trial.number, trial.state.name, values, self._values(trial), trial.user_attrs.get("seconds"))


def distribution(parameter: Parameter) -> BaseDistribution:
    """Optuna's distribution of a searched key; choices are their labels, which may be any text."""
    if parameter.kind == "choice":
        return CategoricalDistribution(parameter.labels)
    low, high = parameter.bounds
    if parameter.kind in ("int", "logint"):
        return IntDistribution(low, high, log=parameter.kind == "logint")
    return FloatDistribution(low, high, log=parameter.kind == "loguniform")


def _value(parameter: Parameter, value: Any) -> Any:
    return parameter.choice[parameter.labels.index(value)] if parameter.choice is not None else value


def _objective(index: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: trial.values[index]


def _proposed(storage: optuna.storages.BaseStorage) -> int:
    return sum(storage.get_n_trials(study._study_id) for study in storage.get_all_studies())
