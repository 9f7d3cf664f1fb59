"""Experiments of a few weights whose traffic real workers can count in no time."""

from typing import Any

from bbh_dist.config import Experiment

INPUT_SHAPE, CLASSES = (4,), 3
_SEVERAL = {"likelihood_samples": 2, "kl_samples": 4}

CASES: dict[str, dict[str, Any]] = {
    "map": {"method": {"name": "map"}},
    "mnf": {"method": {"name": "mnf", "posterior_hidden": 3, "auxiliary_hidden": 4}},
    "mnf-local": {"method": {"name": "mnf", "estimator": "local", "likelihood_samples": 2}},
    "dropout": {"method": {"name": "dropout", "rate": 0.3}},
    "bbb": {"method": {"name": "bbb", "likelihood_samples": 2}},
    "bbb-local": {"method": {"name": "bbb", "estimator": "local"}, "precision": "float64"},
    "bbb-flipout": {"method": {"name": "bbb", "estimator": "flipout"}, "optimizer": {"gradient_clip": 1.0}},
    "ensemble": {"method": {"name": "ensemble", "members": 4}},
    "ensemble-replicas": {"method": {"name": "ensemble", "members": 3}, "optimizer": {"gradient_clip": 1.0}},
    "single": {"method": {"kind": "single"}},
    "single-knn": {"method": {"kind": "single", "divergence": "knn", **_SEVERAL}},
    "single-discriminator": {"method": {"kind": "single", "divergence": "discriminator", **_SEVERAL}},
    "sliced": {"method": {"kind": "sliced", **_SEVERAL}},
    "sliced-marginal": {"method": {"kind": "sliced", "divergence": "knn_marginal"}, "precision": "float64"},
    "layerwise": {"method": {"kind": "layerwise"}},
    "layerwise-clipped": {"method": {"kind": "layerwise", **_SEVERAL}, "optimizer": {"gradient_clip": 1.0}},
    "layerwise-narrow": {
        "method": {"kind": "layerwise", "head_precision": "bfloat16", "likelihood": "log_mean", **_SEVERAL},
        "optimizer": {"name": "rmsprop", "second_moment": "bfloat16"},
    },
    "layerwise-replicas": {"method": {"kind": "layerwise"}, "parallel": {"shards": 1}},
    "single-replicas": {"method": {"kind": "single", **_SEVERAL}, "parallel": {"shards": 1}},
}


def experiment(case: str, workers: int = 1) -> Experiment:
    """A case as an experiment of a number of workers."""
    settings = dict(CASES[case])
    method = dict(settings.pop("method"))
    if "kind" in method:
        names = ("kind", "head_precision")
        generator = {"hidden": [6, 7], "noise_dim": 3} | {name: method.pop(name) for name in names if name in method}
        method = {"name": "bbh", "generator": generator, **method}
    settings["parallel"] = {"workers": workers} | settings.get("parallel", {})
    return Experiment.model_validate(
        {"task": "digits5", "network": "mlp:5", "method": method, "batch_size": 11, **settings}
    )
