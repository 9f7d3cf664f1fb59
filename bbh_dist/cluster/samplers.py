"""Optuna's samplers as a search space names them, and what they are told of trials that failed."""

import copy
from collections.abc import Container
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from bbh_dist.config import SearchSpace


def build_sampler(space: SearchSpace, derived: int) -> BaseSampler:
    """The sampler of a space; `derived` > 0 gives another stream of the same seed."""
    config = space.sampler
    seed = (config.seed + 1_000_003 * derived) % 2**32
    if config.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if config.name == "nsga2":
        return optuna.samplers.NSGAIISampler(population_size=max(2, config.startup_trials), seed=seed)
    return AvoidingTPESampler(n_startup_trials=config.startup_trials, constant_liar=True, seed=seed)


class AvoidingTPESampler(TPESampler):
    """TPE (Bergstra et al. 2011) that takes trials that failed as the worst ones, like those that were pruned.

    Optuna's own takes no notice of them: a choice that always diverges has then never been seen, looks better than any
    that has, and is proposed again and again (optuna/optuna, issues 332 and 5664).
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the keys that are sampled together."""
        return super().sample_relative(_FailedArePruned(study), trial, search_space)  # type: ignore[arg-type]

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of one key."""
        seen: Any = _FailedArePruned(study)
        return super().sample_independent(seen, trial, param_name, param_distribution)


class _FailedArePruned:
    """A study in which no trial has failed, as far as a sampler looks; its storage is left as it is."""

    def __init__(self, study: optuna.Study) -> None:
        self._seen = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = self._seen._get_trials(deepcopy=deepcopy, use_cache=use_cache)
        shown = [_pruned(trial) if trial.state == TrialState.FAIL else trial for trial in trials]
        return [trial for trial in shown if states is None or trial.state in states]


def _pruned(trial: FrozenTrial) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.state = TrialState.PRUNED
    return shown
