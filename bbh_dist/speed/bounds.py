"""What the machine allows at best, by the costs that are counted for an experiment."""

from functools import cache
from typing import Any

from bbh_dist.config import Experiment
from bbh_dist.speed.experiments import CLASSES, SHAPE


def bound(experiment: Experiment, median: float, threads: int, workers: int = 1) -> dict[str, float | None]:
    """The lower bound of a step and how many times as long it took."""
    least = bound_milliseconds(experiment, threads, workers)
    return {"bound": least, "bound_ratio": None if least is None else median / least}


def bound_milliseconds(experiment: Experiment, threads: int, workers: int = 1) -> float | None:
    """Least milliseconds of a step: bytes and operations that cannot be avoided, at the machine's own speed."""
    try:
        from bbh_dist.costs import lower_bound_seconds, step_costs
    except ImportError:
        return None

    return 1000 * lower_bound_seconds(step_costs(experiment, SHAPE, CLASSES, workers), _machine(threads))


@cache
def _machine(threads: int) -> Any:
    from bbh_dist.costs import measure_machine

    return measure_machine(threads)
