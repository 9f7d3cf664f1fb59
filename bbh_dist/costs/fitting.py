"""How many workers a method needs so that each has enough memory."""

from collections.abc import Callable
from dataclasses import dataclass

from bbh_dist.config import Experiment
from bbh_dist.costs.machine import Machine
from bbh_dist.costs.step import StepCosts

_MOST_WORKERS = 4096


@dataclass(frozen=True)
class Fit:
    """The smallest number of workers whose peak fits, and that peak."""

    workers: int
    peak_bytes: int


def peak_bytes(costs: StepCosts, machine: Machine) -> int:
    """Most memory that a worker takes on a machine."""
    return costs.peak_bytes + machine.overhead_bytes


def smallest_fit(experiment: Experiment, costs_of: Callable[[int], StepCosts], machine: Machine) -> Fit | None:
    """The smallest power of two of workers (times the shards, where they are given) that fits; None where none does.

    Each worker needs an example of a batch. `costs_of` gives the costs for a number of workers.
    """
    workers = experiment.parallel.shards or 1
    before: int | None = None
    while workers <= min(experiment.batch_size, _MOST_WORKERS):
        peak = peak_bytes(costs_of(workers), machine)
        if peak <= machine.memory_bytes:
            return Fit(workers, peak)
        if before is not None and peak > 0.98 * before:  # more workers do not help
            return None
        before, workers = peak, 2 * workers
    return None
