"""Training: the objective, the loop, schedules and checkpoints. Torch only; runs without Ray."""

from bbh_dist.sharding import Workers
from bbh_dist.training.health import health
from bbh_dist.training.objective import annealed, negative_log_likelihood, objective
from bbh_dist.training.trainer import Diverged, Trainer

__all__ = ["Diverged", "Trainer", "Workers", "annealed", "health", "negative_log_likelihood", "objective"]
