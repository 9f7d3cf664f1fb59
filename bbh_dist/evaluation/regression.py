"""Predictions of numbers and their measures.

Legend: S weight samples, N examples, G points of a grid.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbh_dist.evaluation.prediction import evaluated_noise, passes
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import Workers
from bbh_dist.tasks import Gaussian, Task

_ALONE = Workers()
_COVERED_STDDEVS = 2


@dataclass(frozen=True)
class RegressionPrediction:
    """Means (S, N) of the targets under each weight sample, in their units: an equal mixture of Gaussians."""

    means: Tensor
    likelihood: Gaussian

    @property
    def mean(self) -> Tensor:
        """Predictive mean (N,)."""
        return self.means.mean(0)

    @property
    def stddev(self) -> Tensor:
        """Standard deviation (N,) over the weight samples, of the S that there are; 0 for a point estimate."""
        return self.means.std(0, correction=0)

    @property
    def predictive_stddev(self) -> Tensor:
        """Standard deviation (N,) of a target: over weight samples, and the likelihood's noise."""
        return (self.means.var(0, correction=0) + self.likelihood.stddev**2).sqrt()

    @property
    def is_finite(self) -> bool:
        """Whether all means are numbers."""
        return bool(self.means.isfinite().all())

    def log_density(self, targets: Tensor) -> Tensor:
        """Logarithm (N,) of the mixture's density at the targets (N,): of the mean likelihood, nats."""
        return self.likelihood.log_density(self.means, targets).logsumexp(0) - math.log(len(self.means))


@torch.no_grad()
def predict_means(
    method: Method, inputs: Tensor, noise: Noise, likelihood: Gaussian, workers: Workers = _ALONE
) -> RegressionPrediction:
    """The prediction for inputs (N, ...), the same on every worker; 8 bytes for each weight sample and example."""
    noise = evaluated_noise(method, noise)
    means = torch.zeros(len(noise), len(inputs), dtype=torch.float64, device=inputs.device)
    for own in passes(method, inputs, noise, workers):
        rows, columns = own.samples, own.examples
        outputs = own.outputs(inputs[columns.start : columns.stop])
        means[rows.start : rows.stop, columns.start : columns.stop] = likelihood.mean(outputs.double())
    return RegressionPrediction(workers.sum(means, "predictions"), likelihood)


def measure_means(prediction: RegressionPrediction, targets: Tensor) -> dict[str, float]:
    """All measures of a prediction for N examples, and their targets (N,)."""
    errors = targets.double() - prediction.mean
    covered = errors.abs() <= _COVERED_STDDEVS * prediction.predictive_stddev
    return {
        "rmse": float(errors.square().mean().sqrt()),
        "nll": -float(prediction.log_density(targets.double()).mean()),
        "coverage": 100 * float(covered.double().mean()),
    }


def curve_details(task: Task, on_grid: RegressionPrediction, on_train: RegressionPrediction) -> dict[str, Any]:
    """What the figure of a curve shows, as lists that JSON holds, in the units of x and y.

    Lists over the grid: `x`, `truth`, `mean`, `stddev` over weight samples, `predictive_stddev` with noise; over
    training points `train_x` and `train_y`. `train_coverage` in percent. `rmse` is that of the mean from the truth,
    without noise, over the grid between the outermost training points.
    """
    curve, likelihood = task.curve, on_grid.likelihood
    assert curve is not None
    inside = (curve.x >= curve.train_x.min()) & (curve.x <= curve.train_x.max())
    errors = on_grid.mean - curve.truth.to(on_grid.mean)
    return {
        "x": curve.x.tolist(),
        "truth": curve.truth.tolist(),
        "mean": on_grid.mean.tolist(),
        "stddev": on_grid.stddev.tolist(),
        "predictive_stddev": on_grid.predictive_stddev.tolist(),
        "train_x": curve.train_x.tolist(),
        "train_y": task.train.labels.tolist(),
        "train_coverage": measure_means(on_train, task.train.labels)["coverage"],
        "noise_stddev": likelihood.stddev,
        "rmse": float(errors[inside.to(errors.device)].square().mean().sqrt()),
    }
