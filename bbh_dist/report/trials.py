"""Trials of a study as rows, and which of them are best: pure functions, independent of the search library."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bbh_dist.config import Objective


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study."""

    number: int
    state: str
    """COMPLETE, PRUNED or FAIL."""
    values: dict[str, float] | None
    """Objective metric to its value."""
    params: dict[str, object]
    """Searched key to value: a number, text, truth value or list. Keys whose condition is not met are absent."""
    seconds: float | None


def has_values(trial: TrialRow, objectives: Sequence[Objective]) -> bool:
    """Whether the trial is complete and has a finite value for each objective."""
    if trial.state != "COMPLETE":
        return False
    values = [(trial.values or {}).get(objective.metric) for objective in objectives]
    return all(value is not None and bool(np.isfinite(value)) for value in values)


def value_of(trial: TrialRow, objective: Objective) -> float:
    """The objective's value of a trial that `has_values`.

    Raises:
        ValueError: the trial has no such value.
    """
    if trial.values is None or objective.metric not in trial.values:
        raise ValueError(f"trial {trial.number} has no value of {objective.metric}")
    return float(trial.values[objective.metric])


def costs(trials: Sequence[TrialRow], objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Values of shape (trials, objectives) with the sign of maximised ones turned, so that less is better."""
    rows = [
        [value_of(trial, each) * (1 if each.direction == "minimize" else -1) for each in objectives] for trial in trials
    ]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(objectives))


def pareto_front(trials: Sequence[TrialRow], objectives: Sequence[Objective]) -> list[int]:
    """Numbers of the complete trials that no other one dominates, best in the first objective first.

    One trial dominates another if it is no worse in any objective and better in one. Of trials with equal values all
    stay, in the order of their numbers. Trials with a missing or non-finite value are left out.
    """
    usable = sorted((t for t in trials if has_values(t, objectives)), key=lambda t: t.number)
    cost = costs(usable, objectives)
    keep = [row for row in range(len(usable)) if not _is_dominated(cost[row], cost)]
    return [usable[row].number for row in sorted(keep, key=lambda row: cost[row, 0])]


def _is_dominated(one: NDArray[np.float64], cost: NDArray[np.float64]) -> bool:
    return bool(np.any(np.all(cost <= one, axis=1) & np.any(cost < one, axis=1)))


def rank_best(trials: Sequence[TrialRow], objectives: Sequence[Objective]) -> list[int]:
    """Numbers of the trials, best first; ties go by number.

    One objective: all complete trials with a finite value. Several: the Pareto front by Euclidean distance to the
    ideal point, after each objective is scaled to [0, 1] over the front (0 where all of the front are equal).
    """
    usable = sorted((t for t in trials if has_values(t, objectives)), key=lambda t: t.number)
    if len(objectives) > 1:
        front = set(pareto_front(usable, objectives))
        usable = [trial for trial in usable if trial.number in front]
    if not usable:
        return []
    cost = costs(usable, objectives)
    keys = cost[:, 0] if len(objectives) == 1 else _distance_to_ideal(cost)
    return [usable[row].number for row in np.argsort(keys, kind="stable")]


def _distance_to_ideal(cost: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = cost.min(axis=0), cost.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    # Rounding lets mathematically equal distances decide by number instead of by the last bit.
    return np.round(np.linalg.norm((cost - low) / span, axis=1), 12)
