"""Experiments of a fraction of a second, for the tests beside this file."""

from typing import Any

import torch

from bbh_dist.config import Experiment
from bbh_dist.noise import keyed_generator
from bbh_dist.tasks import Categorical, Split, Task

UNSPLIT: dict[str, dict[str, Any]] = {
    "map": {"name": "map", "kl_weight": 0.3},
    "dropout": {"name": "dropout", "rate": 0.4, "kl_weight": 0.3},
    "bbb": {"name": "bbb", "initial_stddev": 0.3, "likelihood_samples": 2, "kl_weight": 0.3},
    "mnf": {
        "name": "mnf",
        "posterior_hidden": 3,
        "auxiliary_hidden": 4,
        "initial_log_variance": -4.0,
        "likelihood_samples": 3,
        "kl_weight": 0.3,
    },
}
"""Methods whose weight samples are not split into parts."""
METHODS = (
    UNSPLIT
    | {"ensemble": {"name": "ensemble", "members": 4, "kl_weight": 0.3}}
    | {
        kind: {
            "name": "bbh",
            "generator": {"kind": kind, "hidden": [6], "noise_dim": 3},
            "kl_samples": 4,
            "likelihood_samples": 3,
            "kl_weight": 0.3,
        }
        for kind in ("single", "sliced", "layerwise")
    }
)


def experiment(method: str | dict[str, Any] = "single", **changes: Any) -> Experiment:
    """Three epochs of 6 steps on `small_task`, the last of which has a batch of one example."""
    settings: dict[str, Any] = {
        "task": "digits5",
        "network": "mlp:5",
        "method": METHODS[method] if isinstance(method, str) else method,
        "epochs": 3,
        "batch_size": 11,
        "evaluation": {"samples": 8, "epoch_samples": 4},
        "precision": "float64",
    }
    return Experiment.model_validate(settings | changes)


def small_task() -> Task:
    """Three classes of noisy points in four dimensions: 56 training examples, 25 for validation, 20 for test."""
    random = keyed_generator("small task")

    def split(count: int) -> Split:
        labels = torch.arange(count) % 3
        return Split(torch.randn(count, 4, generator=random) + 1.5 * torch.eye(4)[labels], labels)

    outliers = torch.randn(31, 4, generator=random)
    return Task("small", Categorical(3), split(56), split(25), split(20), outliers[:15], outliers[15:])
