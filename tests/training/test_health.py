"""A run whose divergence estimate misbehaves says so; a healthy one says nothing."""

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_runs import METHODS, experiment, small_task

from bbh_dist.tasks import Task, load_task
from bbh_dist.train import show
from bbh_dist.training import Trainer, health

COLLAPSING = {
    "name": "bbh",
    "generator": {"kind": "single", "hidden": [16, 16], "noise_dim": 64, "shared_noise": False},
    "divergence": "knn",
}
"""At full weight, at a rate of 0.1: the estimate has no pull back, so the weights' variance grows without end."""


def row(epoch: int, **metrics: float) -> dict[str, float]:
    return {"epoch": epoch, "train/kl": 5.0, "posterior/relative_variance": 1.0, "val/nll": 0.3} | metrics


@pytest.mark.parametrize(
    ("name", "value", "lines"),
    [
        ("train/kl", 0.0, 0),
        ("train/kl", -1e-3, 1),
        ("posterior/relative_variance", 10.0, 0),
        ("posterior/relative_variance", 10.1, 1),
    ],
)
def test_thresholds(name: str, value: float, lines: int) -> None:
    assert len(health([row(1), row(2, **{name: value}), row(3)])) == lines


def test_lines_say_how_often_how_much_and_when() -> None:
    rows = [row(1), row(2, **{"train/kl": -20.0}), row(3, **{"train/kl": -3500.0, "posterior/relative_variance": 77.0})]
    negative, exploding = health(rows)
    assert negative.startswith("the KL estimate was negative in 2 of 3 epochs, lowest -3,500 nats in epoch 3")
    assert exploding.startswith("the weights' variance exploded in 1 of 3 epochs, up to 77 times")
    assert exploding.endswith("in epoch 3")


def test_a_number_that_is_not_finite_is_ill_health_and_a_lost_worker_is_not() -> None:
    assert health([], "loss is not finite by step 3 of epoch 1") == ["loss is not finite by step 3 of epoch 1"]
    assert health([], "the workers were lost") == []
    assert health([{"epoch": 1, "train/kl": 7.5}]) == []


def run(method: Any, task: Task, **changes: Any) -> Trainer:
    trainer = Trainer(experiment(method, epochs=10, optimizer={"lr": 0.1}, precision="float32", **changes), task)
    while not trainer.done:
        trainer.run_epoch()
    return trainer


def test_nearest_neighbours_at_full_weight_collapse_and_say_so() -> None:
    settings = {"network": "mlp:10", "batch_size": 100}
    negative, exploding = health(run(COLLAPSING, load_task("digits5", Path()), **settings).history)
    assert negative.startswith("the KL estimate was negative in")
    assert exploding.startswith("the weights' variance exploded in")


def test_a_sound_run_says_nothing() -> None:
    trainer = run(METHODS["single"] | {"kl_weight": 1.0}, small_task())
    assert health(trainer.history) == []
    assert 0 < trainer.history[-1]["posterior/relative_variance"] < 10


def test_a_divergence_that_is_not_finite_is_counted() -> None:
    trainer = Trainer(experiment("single"), small_task())
    head = trainer.method.get_parameter("generator.head.weight")
    step = trainer.step

    def breaking(number: int, batch: Any) -> Any:
        if number == 4:
            head.data.fill_(float("inf"))
        return step(number, batch)

    trainer.step = breaking  # type: ignore[method-assign]
    with pytest.raises(Exception, match=r"by step 6 of epoch 1: .* KL estimate not finite at 2 of the steps") as caught:
        trainer.run_epoch()
    assert health(trainer.history, str(caught.value)) == [str(caught.value)]


def test_the_summary_of_a_run_has_a_line_for_each_fault(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"metrics": {"test/nll": 0.5}, "figures": "x", "seconds": 1.0, "step_ms": 1.0, "ui": "mlflow ui"}
    faults = health([row(1, **{"train/kl": -20.0, "posterior/relative_variance": 77.0})])
    show(Console(), result | {"health": faults})
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("health: ")] == [f"health: {fault}" for fault in faults]
    show(Console(), result | {"health": []})
    assert "health" not in capsys.readouterr().out
