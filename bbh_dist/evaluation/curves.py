"""What the figures of a run show, as short lists that JSON holds."""

import math
from typing import Any

import torch

from bbh_dist.evaluation.metrics import reliability
from bbh_dist.evaluation.prediction import Prediction

_GRID_POINTS = 201


def curves(prediction: Prediction, labels: torch.Tensor, outliers: Prediction | None) -> dict[str, Any]:
    """Entropy CDFs in and out of distribution on a grid in nats, and the bins of a reliability diagram.

    The bins are those of the calibration error; empty ones are None.
    """
    classes = prediction.probabilities.shape[1]
    grid = torch.linspace(0, math.log(classes), _GRID_POINTS, dtype=torch.float64)
    counts, confidence_sums, correct = reliability(prediction, labels)

    def mean_per_bin(sums: torch.Tensor) -> list[float | None]:
        return [float(total / n) if n else None for total, n in zip(sums, counts, strict=True)]

    result: dict[str, Any] = {
        "classes": classes,
        "entropy_grid": grid.tolist(),
        "entropy_cdf": _cdf(prediction, grid),
        "confidence": mean_per_bin(confidence_sums),
        "accuracy": mean_per_bin(correct),
        "bin_count": counts.long().tolist(),
    }
    if outliers is not None:
        result["outlier_entropy_cdf"] = _cdf(outliers, grid)
    return result


def _cdf(prediction: Prediction, grid: torch.Tensor) -> list[float]:
    ordered = prediction.entropy.cpu().sort().values
    # An entropy of exactly log C may be rounded above it; the CDF still ends at 1.
    ordered = ordered.clamp_max(float(grid[-1]))
    return (torch.searchsorted(ordered, grid, right=True) / len(ordered)).tolist()
