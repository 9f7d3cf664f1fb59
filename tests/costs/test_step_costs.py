"""Counts from shapes against formulas and against what real steps hold."""

from typing import Any

import pytest
import torch
from small_costs import CASES, CLASSES, INPUT_SHAPE, experiment

from bbh_dist.config import Experiment
from bbh_dist.costs import StepCosts, step_costs
from bbh_dist.tasks import Categorical, Split, Task
from bbh_dist.training import Trainer

HIDDEN, NOISE_DIM, LENET_WEIGHTS, LENET_TENSORS = (64, 256, 512), 8, 431_080, 8


def lenet(kind: str, workers: int = 1, **changes: Any) -> StepCosts:
    method = {"name": kind} if kind in ("map", "ensemble") else {"name": "bbh", "generator": {"kind": kind}}
    settings = {"task": "mnist", "network": "lenet", "method": method, "optimizer": {"name": "rmsprop"}} | changes
    return step_costs(Experiment.model_validate(settings), (1, 28, 28), 10, workers)


@pytest.fixture(scope="module")
def layerwise() -> StepCosts:
    return lenet("layerwise")


def test_parameters_of_a_layerwise_lenet(layerwise: StepCosts) -> None:
    first, second, third = HIDDEN
    trunk = (NOISE_DIM + 1) * first + (first + 1) * second + (second + 1) * third
    heads = (third + 1) * LENET_WEIGHTS
    assert layerwise.parameters == LENET_TENSORS * trunk + heads + LENET_TENSORS  # and a sigma for each tensor


def test_a_layerwise_lenet_holds_weights_and_second_moments_and_little_else(layerwise: StepCosts) -> None:
    assert layerwise.parameter_bytes == layerwise.optimizer_bytes == 4 * layerwise.parameters
    assert layerwise.working_bytes < 0.06 * layerwise.parameter_bytes
    assert layerwise.gradient_bytes < 0.01 * layerwise.parameter_bytes


def test_the_step_of_a_layerwise_lenet_reads_heads_twice_and_writes_them_once(layerwise: StepCosts) -> None:
    assert layerwise.bytes_moved == pytest.approx(5 * 4 * layerwise.parameters, rel=0.03)


def test_shards_divide_heads_and_their_state(layerwise: StepCosts) -> None:
    shared = LENET_TENSORS * 4 * 150_000
    for workers in (2, 8):
        part = lenet("layerwise", workers)
        assert part.parameters == layerwise.parameters
        for name in ("parameter_bytes", "optimizer_bytes"):
            assert getattr(part, name) * workers == pytest.approx(getattr(layerwise, name), abs=workers * shared)
        assert part.flops == pytest.approx(layerwise.flops / workers, rel=0.1)  # all have all trunks


@pytest.mark.parametrize("kind", ["single", "sliced"])
def test_shards_divide_slices_not_parameters(kind: str) -> None:
    whole, half = lenet(kind), lenet(kind, 2)
    assert half.parameter_bytes == whole.parameter_bytes
    assert half.activation_bytes < 0.65 * whole.activation_bytes
    assert half.flops == pytest.approx(whole.flops / 2, rel=0.05)


def test_flops_of_map_are_those_of_its_layers() -> None:
    products = 100 * (24**2 * 20 * 25 + 8**2 * 50 * 500 + 800 * 500 + 500 * 10)
    inputs = 100 * 24**2 * 20 * 25  # images need no gradient
    assert lenet("map").flops == 2 * (3 * products - inputs)


def test_an_ensemble_costs_what_its_members_cost_and_shards_divide_them() -> None:
    alone, whole, half = lenet("map"), lenet("ensemble"), lenet("ensemble", 2)
    for name in ("parameters", "parameter_bytes", "optimizer_bytes", "gradient_bytes", "flops"):
        assert getattr(whole, name) == 10 * getattr(alone, name), name
        assert getattr(half, name) == getattr(whole, name) // (1 if name == "parameters" else 2), name
    assert half.wire == {"divergence": 4}  # one number to report, and no gradient


@pytest.mark.parametrize("case", CASES)
def test_a_real_step_holds_what_is_counted(case: str) -> None:
    settings = experiment(case)
    split = Split(torch.rand(22, *INPUT_SHAPE), torch.arange(22) % CLASSES)
    trainer = Trainer(settings, Task("small", Categorical(CLASSES), split, split, split))
    trainer.step(0, torch.arange(11))
    costs, parameters = step_costs(settings, INPUT_SHAPE, CLASSES, 1), list(trainer.method.parameters())
    assert costs.parameters == sum(parameter.numel() for parameter in parameters)
    assert costs.parameter_bytes == sum(parameter.nbytes for parameter in parameters)
    assert costs.gradient_bytes == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    assert costs.optimizer_bytes == sum(value.nbytes for value in trainer.update.tensors().values() if value.dim())


def test_clipping_reads_heads_once_more(layerwise: StepCosts) -> None:
    clipped = lenet("layerwise", optimizer={"name": "rmsprop", "gradient_clip": 1.0})
    heads = 4 * 512 * LENET_WEIGHTS
    assert clipped.bytes_moved - layerwise.bytes_moved == pytest.approx(heads, rel=0.02)


def test_the_best_epochs_weights_are_counted_where_a_run_may_stop_early(layerwise: StepCosts) -> None:
    patient = lenet("layerwise", early_stop={"patience": 3})
    assert patient.best_bytes >= patient.parameter_bytes
    assert patient.peak_bytes - patient.best_bytes == layerwise.peak_bytes
    assert layerwise.best_bytes == 0


def test_a_network_that_does_not_suit_is_said() -> None:
    with pytest.raises(ValueError, match="needs images"):
        step_costs(experiment("map").model_copy(update={"network": "lenet"}), INPUT_SHAPE, CLASSES, 1)
