"""Regression through the whole loop: the loss by hand, units, measures, early stop and the curve."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Normal

from bbh_dist.config import Experiment, measures_of
from bbh_dist.tasks import Task, load_task
from bbh_dist.training import Trainer

BBH = {"name": "bbh", "generator": {"hidden": [6], "noise_dim": 3}, "kl_samples": 3, "likelihood_samples": 2}


def experiment(method: dict[str, Any], **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "task": "toy",
        "network": "mlp:7",
        "method": method,
        "epochs": 2,
        "batch_size": 20,
        "evaluation": {"samples": 8, "epoch_samples": 4},
        "precision": "float64",
    }
    return Experiment.model_validate(settings | changes)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("toy", Path())


def test_the_loss_is_that_of_the_targets_in_their_own_units(task: Task) -> None:
    trainer = Trainer(experiment({"name": "map", "kl_weight": 0.3}, epochs=1), task)
    x, y = trainer.task.train.inputs, trainer.task.train.labels
    outputs = trainer.method(x, None)[0, :, 0].detach()
    metrics = trainer.run_epoch()
    assert metrics["train/nll"] == pytest.approx(-float(Normal(32 * outputs, 9.0).log_prob(y).mean()), rel=1e-12)


def test_a_run_emits_the_measures_of_regressions_and_a_curve(task: Task) -> None:
    trainer = Trainer(experiment(BBH), task)
    metrics = [trainer.run_epoch() for _ in range(2)][-1]
    names = measures_of("regression", outliers=False)
    assert {name for name in metrics if name.startswith("val/")} == {f"val/{name}" for name in names}
    measures, details = trainer.test()
    assert set(measures) == {f"test/{name}" for name in names}
    curve = details["curve"]
    assert {len(curve[name]) for name in ("x", "truth", "mean", "stddev", "predictive_stddev")} == {500}
    assert curve["train_y"] == pytest.approx(task.train.labels.tolist())
    assert all(
        full == pytest.approx(math.hypot(part, 9))
        for full, part in zip(curve["predictive_stddev"], curve["stddev"], strict=True)
    )
    inside = [(m, t) for x, m, t in zip(curve["x"], curve["mean"], curve["truth"], strict=True) if _is_inside(x, curve)]
    assert 250 < len(inside) < 340  # of 500 points in [-6, 6] those among the data, nearly [-4, 4]
    assert curve["rmse"] == pytest.approx((sum((m - t) ** 2 for m, t in inside) / len(inside)) ** 0.5)


def _is_inside(x: float, curve: dict[str, Any]) -> bool:
    return min(curve["train_x"]) <= x <= max(curve["train_x"])


def test_training_fits_the_cubic(task: Task) -> None:
    """A constant has an RMSE of 26; noise alone leaves 9."""
    trainer = Trainer(experiment({"name": "map"}, network="mlp", epochs=150, optimizer={"lr": 2e-2}), task)
    for _ in range(150):
        metrics = trainer.run_epoch()
    assert metrics["val/rmse"] < 14
    assert metrics["train/nll"] < 3.8


def test_early_stop_takes_the_likelihood_of_regressions(task: Task) -> None:
    changes = {"epochs": 30, "early_stop": {"patience": 2}, "optimizer": {"lr": 3.0}}
    trainer = Trainer(experiment({"name": "map"}, **changes), task)
    while not trainer.done:
        metrics = trainer.run_epoch()
    assert trainer.epoch < 30
    assert trainer.best_nll == min(epoch["val/nll"] for epoch in trainer.history)
    assert metrics["val/nll"] == pytest.approx(trainer.best_nll, rel=1e-12)


def test_targets_follow_the_precision(task: Task) -> None:
    single = task.to(torch.device("cpu"), torch.float32)
    assert single.train.labels.dtype == torch.float32
    assert task.to(torch.device("cpu"), torch.float64).train.labels.dtype == torch.float64
