"""What the machine allows at best, by the costs that are counted for an experiment."""

from functools import cache

from bbh_dist.config import Experiment
from bbh_dist.costs import Machine, lower_bound_seconds, measure_machine, step_costs
from bbh_dist.speed.experiments import CLASSES, SHAPE


def bound(experiment: Experiment, median: float, threads: int, workers: int = 1) -> dict[str, float]:
    """The lower bound of a step and how many times as long it took."""
    least = bound_milliseconds(experiment, threads, workers)
    return {"bound": least, "bound_ratio": median / least}


def bound_milliseconds(experiment: Experiment, threads: int, workers: int = 1) -> float:
    """Least milliseconds of a step: bytes and operations that cannot be avoided, at the machine's own speed."""
    return 1000 * lower_bound_seconds(step_costs(experiment, SHAPE, CLASSES, workers), _machine(threads))


@cache
def _machine(threads: int) -> Machine:
    return measure_machine(threads)
