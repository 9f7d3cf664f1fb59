"""What the machine allows at best, by the costs that are counted for an experiment."""

from functools import cache

from bbh_dist.config import Experiment
from bbh_dist.costs import Machine, lower_bound_seconds, step_costs
from bbh_dist.speed.device import Device
from bbh_dist.speed.experiments import CLASSES, SHAPE


def bound(experiment: Experiment, median: float, device: Device, workers: int = 1) -> dict[str, float]:
    """The lower bound of a step and how many times as long it took."""
    least = bound_milliseconds(experiment, device, workers)
    return {"bound": least, "bound_ratio": median / least}


def bound_milliseconds(experiment: Experiment, device: Device, workers: int = 1) -> float:
    """Least milliseconds of a step: bytes and operations that cannot be avoided, at the device's own speed."""
    return 1000 * lower_bound_seconds(step_costs(experiment, SHAPE, CLASSES, workers), _machine(device))


@cache
def _machine(device: Device) -> Machine:
    return device.rates()
