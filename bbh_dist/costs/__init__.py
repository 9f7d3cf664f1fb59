"""What a training step costs a worker, what machines can do, and how long the one takes on the other."""

from bbh_dist.costs.gpu import measure_gpu
from bbh_dist.costs.machine import Machine, lower_bound_seconds, measure_machine
from bbh_dist.costs.prediction import predicted_seconds
from bbh_dist.costs.step import StepCosts, step_costs
from bbh_dist.costs.trace import Operation, Trace

__all__ = [
    "Machine",
    "Operation",
    "StepCosts",
    "Trace",
    "lower_bound_seconds",
    "measure_gpu",
    "measure_machine",
    "predicted_seconds",
    "step_costs",
]
