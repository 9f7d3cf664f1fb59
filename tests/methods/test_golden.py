"""Losses of the first three steps of every method on digits5, in double precision on one thread.

A change here is a change of what is computed. If it is meant, write the file again and say why in the commit:

    python tests/methods/test_golden.py
"""

import itertools
import json
from pathlib import Path

import pytest
import torch

from bbh_dist.config import Experiment
from bbh_dist.tasks import Task, load_task
from bbh_dist.training import Trainer

GOLDEN = Path(__file__).with_name("golden.json")
KINDS = ("single", "sliced", "layerwise")
DIVERGENCES = ("semi_implicit", "knn", "knn_marginal", "gaussian", "discriminator")
METHODS: dict[str, dict] = {
    "map": {"name": "map", "prior_stddev": 1.3},
    "ensemble": {"name": "ensemble", "members": 3, "prior_stddev": 1.3},
    "dropout": {"name": "dropout", "rate": 0.3, "prior_stddev": 1.3},
    **{
        f"bbb-{estimator}": {
            "name": "bbb",
            "estimator": estimator,
            "initial_stddev": 0.4,
            "prior_stddev": 1.3,
            "likelihood_samples": 2,
        }
        for estimator in ("reparameterised", "local", "flipout")
    },
} | {
    f"bbh-{kind}-{divergence}": {
        "name": "bbh",
        "generator": {"kind": kind, "hidden": (6, 8), "noise_dim": 3},
        "divergence": divergence,
        "prior_stddev": 1.3,
        "kl_samples": 3,
        "likelihood_samples": 2,
        **({"discriminator": {"pretraining_steps": 10}} if divergence == "discriminator" else {}),
    }
    for kind, divergence in itertools.product(KINDS, DIVERGENCES)
}
METHODS |= {
    f"mnf-{estimator}": {
        "name": "mnf",
        "posterior_hidden": 4,
        "auxiliary_hidden": 6,
        "initial_log_variance": -4.0,
        "estimator": estimator,
        "prior_stddev": 1.3,
        "likelihood_samples": 2,
    }
    for estimator in ("reparameterised", "local")
}


def losses(method: dict, task: Task) -> list[dict[str, float]]:
    """Loss, NLL and KL of three steps: epochs of one batch each, while the KL's weight rises from 0."""
    experiment = Experiment.model_validate(
        {
            "task": "digits5",
            "network": "mlp:6",
            "method": method | {"anneal": {"epochs": 4}},
            "epochs": 3,
            "batch_size": len(task.train),
            "seed": 11,
            "precision": "float64",
            "evaluation": {"samples": 1, "epoch_samples": 1},
        }
    )
    trainer = Trainer(experiment, task)
    epochs = [trainer.run_epoch() for _ in range(3)]
    return [{name: epoch[f"train/{name}"] for name in ("loss", "nll", "kl")} for epoch in epochs]


@pytest.fixture(scope="module")
def digits5() -> Task:
    return load_task("digits5", Path())


@pytest.mark.parametrize("name", METHODS)
def test_first_losses_are_those_on_record(name: str, digits5: Task) -> None:
    """Tolerance 1e-6: processors differ in the last bits of the initial parameters, drawn in single precision."""
    recorded = json.loads(GOLDEN.read_text())[name]
    for step, expected in zip(losses(METHODS[name], digits5), recorded, strict=True):
        assert step == pytest.approx(expected, rel=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    task = load_task("digits5", Path())
    GOLDEN.write_text(json.dumps({name: losses(method, task) for name, method in METHODS.items()}, indent=2) + "\n")
