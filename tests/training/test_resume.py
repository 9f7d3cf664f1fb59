"""A run that was cut off ends with the bits of one that was not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import METHODS, experiment, small_task
from torch import Tensor

from bbh_dist.training import Trainer

PATIENT = {"early_stop": {"patience": 2}, "epochs": 30, "optimizer": {"name": "adam", "lr": 0.02}}


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Parameters and everything that the optimiser remembers."""
    result = {f"method.{name}": value for name, value in trainer.method.state_dict().items()}
    return result | trainer.update.tensors()


def check_same(found: Trainer, expected: Trainer) -> None:
    a, b = state(found), state(expected)
    assert sorted(a) == sorted(b)
    for name, value in a.items():
        assert value.dtype == b[name].dtype, name
        assert torch.equal(value, b[name]), name
    assert (found.epoch, found.best_epoch, found.best_nll) == (expected.epoch, expected.best_epoch, expected.best_nll)
    assert [measures(entry) for entry in found.history] == [measures(entry) for entry in expected.history]


def measures(entry: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in entry.items() if not name.startswith("time/")}


def run(folder: Path, interrupted_after: int, **changes: Any) -> tuple[Trainer, Trainer]:
    """A run that was saved, thrown away and resumed, and one that was not."""
    first, whole = (Trainer(experiment(**changes), small_task()) for _ in range(2))
    for _ in range(interrupted_after):
        first.run_epoch()
    first.save(folder)
    second = Trainer(experiment(**changes), small_task())
    assert second.resume(folder)
    for trainer in (second, whole):
        while not trainer.done:
            trainer.run_epoch()
    return second, whole


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_each_optimizer_goes_on_bit_for_bit(tmp_path: Path, optimizer: str, precision: str) -> None:
    settings = {"name": optimizer, "lr": 0.01, "schedule": "one_cycle", "gradient_clip": 1.0}
    check_same(*run(tmp_path, 1, optimizer=settings, precision=precision, early_stop={"patience": 2}))


DISCRIMINATOR = METHODS["single"] | {
    "divergence": "discriminator",
    "discriminator": {"hidden": [5, 4], "pretraining_steps": 7, "weights": 9},
}


@pytest.mark.parametrize("interrupted_after", [1, 2])
def test_a_discriminator_goes_on_bit_for_bit(tmp_path: Path, interrupted_after: int) -> None:
    """It was trained 7 times before the first epoch, and once at each of 3 x 6 steps."""
    changes = {"early_stop": {"patience": 2}, "optimizer": {"lr": 0.02}}
    found, expected = run(tmp_path, interrupted_after, method=DISCRIMINATOR, **changes)
    check_same(found, expected)
    assert int(expected.method.get_buffer("discriminator.steps")) <= 7 + 3 * 6
    plain, _ = run(tmp_path / "plain", interrupted_after, method=DISCRIMINATOR)
    assert int(plain.method.get_buffer("discriminator.steps")) == 7 + 3 * 6


@pytest.mark.parametrize("method", METHODS)
def test_each_method_goes_on_bit_for_bit(tmp_path: Path, method: str) -> None:
    check_same(*run(tmp_path, 2, method=METHODS[method] | {"anneal": {"start": 0.5, "epochs": 2}}))


@pytest.mark.parametrize("after", [1, 2, 3])
def test_patience_goes_on(tmp_path: Path, after: int) -> None:
    found, expected = run(tmp_path, after, **PATIENT)
    assert 3 < expected.epoch < 30
    check_same(found, expected)


def test_a_run_that_stopped_early_stays_stopped_with_its_best_weights(tmp_path: Path) -> None:
    first = Trainer(experiment(**PATIENT), small_task())
    while not first.done:
        first.run_epoch()
    first.save(tmp_path)
    second = Trainer(experiment(**PATIENT), small_task())
    second.resume(tmp_path)
    assert second.done
    check_same(second, first)
    assert second.test() == first.test()


def test_seconds_go_on(tmp_path: Path) -> None:
    found, _ = run(tmp_path, 2)
    assert found.seconds > found.history[1]["time/train_seconds"] > found.history[0]["time/train_seconds"]


def test_there_may_be_nothing_to_resume(tmp_path: Path) -> None:
    trainer = Trainer(experiment(), small_task())
    assert not trainer.resume(tmp_path)
    assert trainer.epoch == 0
