"""About how long whole runs take, to put them in an order."""

import math

from bbh_dist.config import Experiment
from bbh_dist.costs.step import step_costs
from bbh_dist.tasks import Task

_FLOPS_PER_SECOND, _BYTES_PER_SECOND = 5e10, 1.5e10
"""Of a core of any recent CPU; runs are only compared with each other."""


def nominal_seconds(experiment: Experiment, task: Task) -> float:
    """Time of all training steps on a nominal core; infinite where a step's costs cannot be counted."""
    try:
        costs = step_costs(experiment, task.input_shape, task.outputs, experiment.parallel.max_workers)
    except (NotImplementedError, RuntimeError):  # an operation that needs values, not shapes alone
        return math.inf
    steps = -(-len(task.train) // experiment.batch_size) * experiment.epochs
    return steps * (costs.flops / _FLOPS_PER_SECOND + costs.bytes_moved / _BYTES_PER_SECOND)
