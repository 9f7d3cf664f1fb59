"""The loop: what an epoch reports, early stop, divergence, clipping, and bits that the seed decides."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_runs import METHODS, experiment, small_task
from torch import Tensor

from bbh_dist.config import Experiment, measures_of
from bbh_dist.noise import Noise
from bbh_dist.tasks import Split
from bbh_dist.training import Diverged, Trainer, objective


def trained(method: str = "single", **changes: Any) -> Trainer:
    trainer = Trainer(experiment(method, **changes), small_task())
    while not trainer.done:
        trainer.run_epoch()
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.method.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides_every_bit(method: str) -> None:
    first, second, other = (trained(method, seed=seed) for seed in (3, 3, 4))
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(other))
    timeless = [[{k: v for k, v in e.items() if "time/" not in k} for e in t.history] for t in (first, second)]
    assert timeless[0] == timeless[1]
    assert first.test() == second.test()


def test_the_global_random_state_decides_nothing_and_stays_as_it_is() -> None:
    torch.manual_seed(0)
    first = weights(trained())
    before = torch.get_rng_state()
    second = weights(trained())
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first, second)


def test_an_epoch_reports_its_metrics() -> None:
    steps: list[tuple[int, int]] = []
    trainer = Trainer(experiment(), small_task())
    metrics = trainer.run_epoch(lambda step, of: steps.append((step, of)))
    assert steps == [(step, 6) for step in range(1, 7)]
    assert {f"val/{name}" for name in measures_of("classification", outliers=True)} <= set(metrics)
    assert metrics["epoch"] == 1
    assert metrics["train/loss"] == pytest.approx(metrics["train/nll"] + 0.3 * metrics["train/kl"] / 56)
    assert trainer.history == [metrics]


def test_the_reported_loss_is_the_objective() -> None:
    """With a learning rate of almost 0 the weights stand still, so the mean over the epoch can be taken at once."""
    trainer = Trainer(experiment("map", optimizer={"name": "sgd", "lr": 1e-15}), small_task())
    metrics = trainer.run_epoch()
    data = trainer.task.train
    with torch.no_grad():
        nll = torch.nn.functional.cross_entropy(trainer.method(data.inputs, None)[0], data.labels)
    kernels = [tensor.detach() for tensor in trainer.method.parameters() if tensor.dim() > 1]
    penalty = sum(float(kernel.square().sum()) / 2 for kernel in kernels)
    assert metrics["train/nll"] == pytest.approx(float(nll))
    assert metrics["train/loss"] == pytest.approx(float(nll) + 0.3 * penalty / 56)


def test_every_epoch_sees_every_example_once_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    trainer = Trainer(experiment(), small_task())
    step = trainer.step
    monkeypatch.setattr(trainer, "step", lambda number, batch: seen.extend(batch.tolist()) or step(number, batch))
    trainer.run_epoch()
    trainer.run_epoch()
    assert sorted(seen[:56]) == sorted(seen[56:]) == list(range(56))
    assert seen[:56] != seen[56:]


def test_noise_never_repeats_over_the_steps_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[tuple[str, int]] = []
    trainer = Trainer(experiment(epochs=2), small_task())
    draw = trainer.method.draw

    def noted(noise: Noise) -> Any:
        keys.append((noise.purpose, noise.step))
        return draw(noise)

    monkeypatch.setattr(trainer.method, "draw", noted)
    trainer.run_epoch()
    trainer.run_epoch()
    assert [key for key in keys if key[0] == "train"] == [("train", number) for number in range(12)]
    assert {key for key in keys if key[0] != "train"} == {("val", 1), ("val", 2)}


def scripted(monkeypatch: pytest.MonkeyPatch, nlls: list[float], **changes: Any) -> tuple[Trainer, list[int]]:
    """A trainer whose validation NLL follows a script after each epoch, and the sample counts of its evaluations."""
    trainer = Trainer(experiment(**changes), small_task())
    asked: list[int] = []

    def evaluate(part: str, samples: int | None = None) -> dict[str, float]:
        asked.append(samples or -1)
        return {"val/nll": nlls[len(asked) - 1]}

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    return trainer, asked


def test_early_stop_keeps_the_best_weights_and_measures_them_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    script = [3.0, 1.0, 2.0, 1.0, 0.5]
    trainer, asked = scripted(monkeypatch, script, epochs=9, early_stop={"patience": 2})
    after = []
    while not trainer.done:
        metrics = trainer.run_epoch()
        after.append(weights(trainer))
    assert (trainer.epoch, trainer.best_epoch, trainer.best_nll) == (4, 2, 1.0)
    assert asked == [4, 4, 4, 4, -1]
    assert metrics["val/nll"] == 0.5
    assert same(weights(trainer), after[1])
    assert not same(weights(trainer), after[2])


def test_the_best_weights_are_kept_when_epochs_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, asked = scripted(monkeypatch, [1.0, 2.0, 3.0, 1.0], early_stop={"patience": 7})
    after = [trainer.run_epoch() and weights(trainer) for _ in range(3)]
    assert trainer.done
    assert asked == [4, 4, 4, -1]  # every epoch alike, then the best in full
    assert same(after[2], after[0])


def test_without_patience_the_last_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, asked = scripted(monkeypatch, [1.0, 2.0, 3.0])
    after = [trainer.run_epoch() and weights(trainer) for _ in range(3)]
    assert asked == [4, 4, 8]
    assert not same(after[2], after[0])


def poisoned(value: float) -> Trainer:
    task = small_task()
    inputs = task.train.inputs.clone()
    inputs[17, 2] = value
    return Trainer(experiment(), replace(task, train=Split(inputs, task.train.labels)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_poisoned_data_diverge_with_a_reason(value: float) -> None:
    trainer = poisoned(value)
    with pytest.raises(Diverged, match=r"^loss is not finite by step 6 of epoch 1: nll sum nan, kl sum"):
        trainer.run_epoch()
    assert (trainer.epoch, trainer.history) == (0, [])


def test_outliers_that_overflow_are_not_taken_for_well_told_ones() -> None:
    """A ranking puts NaN first: unchecked, such a run would have an AUROC near 1."""
    task = small_task()
    trainer = Trainer(
        experiment(precision="float32"), replace(task, outliers_validation=task.outliers_validation * 3e38)
    )
    with pytest.raises(Diverged, match=r"^predictions for val outliers are not finite after epoch 1$"):
        trainer.run_epoch()


@pytest.mark.parametrize("method", ["map", "bbh"])
def test_the_loss_of_an_epoch_is_the_mean_of_its_steps_while_annealing(method: str) -> None:
    task = small_task()
    parts = []

    def recorded(*arguments: Any, **settings: Any) -> Any:
        loss = objective(*arguments, **settings)
        parts.append(float(loss.part.detach()))
        return loss

    kl_weight, anneal = 0.7, {"start": 0.25, "epochs": 1.5}
    changed = {"method": {"name": method, "kl_weight": kl_weight, "anneal": anneal}, "batch_size": len(task.train) // 4}
    trainer = Trainer(Experiment.model_validate({"task": "digits5", "network": "mlp:8", **changed}), task)
    trainer._steps = trainer._steps._replace(objective=recorded)
    assert len(task.train) % 4 == 0
    losses = [trainer.run_epoch()["train/loss"] for _ in range(2)]
    assert losses == pytest.approx([sum(parts[:4]) / 4, sum(parts[4:]) / 4], rel=1e-5)


def moved(clip: float | None) -> float:
    """How far one epoch of plain steps goes: with a clip, at most lr * clip * sum of momenta."""
    optimizer = {"name": "sgd", "lr": 0.01, "gradient_clip": clip}
    trainer = Trainer(experiment("map", optimizer=optimizer, batch_size=56, epochs=1), small_task())
    before = weights(trainer)
    trainer.run_epoch()
    distances = [(value - before[name]).norm() for name, value in weights(trainer).items()]
    return float(torch.stack(distances).norm())


def test_the_gradient_is_clipped_at_its_global_norm() -> None:
    free = moved(None)
    assert moved(free / 0.01 / 10) == pytest.approx(free / 10, rel=1e-5)
    assert moved(free / 0.01 * 10) == free


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_every_optimizer_moves_every_parameter(method: str, optimizer: str) -> None:
    trainer = Trainer(experiment(method, optimizer={"name": optimizer, "lr": 1e-3}), small_task())
    before = weights(trainer)
    trainer.run_epoch()
    assert all(not torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_schedule_and_learning_rate_reach_the_optimizer() -> None:
    trainer = trained(optimizer={"name": "sgd", "lr": 0.02, "schedule": "cosine"})
    assert trainer.update.optimizer.lr == pytest.approx(0.01 * (1 + math.cos(math.pi * 17 / 18)))


def test_test_data_are_measured_with_figures() -> None:
    measures, curves = trained().test()
    assert set(measures) == {f"test/{name}" for name in measures_of("classification", outliers=True)}
    assert sum(curves["bin_count"]) == 20
    assert "outlier_entropy_cdf" in curves
