"""Heads of the layer-wise generator, updated from the factors of their gradient, move as by torch's optimisers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import METHODS, experiment, small_task
from torch import Tensor

from bbh_dist.hypernets import Head
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.training import Trainer

LAYERWISE = METHODS["layerwise"]
OPTIMIZERS = ("adam", "rmsprop", "sgd")
SEVERAL_CALLS = LAYERWISE | {"semi_implicit": {"inner_samples": 6}}  # more than the step draws: G is called again
BFLOAT16 = LAYERWISE | {"generator": LAYERWISE["generator"] | {"head_precision": "bfloat16"}}


def stepped(steps: int, method: dict[str, Any] = LAYERWISE, precision: str = "float64", **optimizer: Any) -> Trainer:
    """A trainer after some steps on batches of 11."""
    trainer = Trainer(experiment(method, optimizer=optimizer, precision=precision, epochs=1000), small_task())
    for step in range(steps):
        trainer.step(step, torch.arange(11) + step % 45)
    return trainer


def state(trainer: Trainer) -> dict[str, Tensor]:
    """Weights and what the optimiser remembers, but for the steps that torch counts for each parameter."""
    tensors = {**trainer.method.state_dict(), **trainer.update.tensors()}
    return {name: value for name, value in tensors.items() if not name.endswith(".step")}


def check_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Relative to the largest number of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        off, size = float((found[name] - value).abs().max()), float(value.abs().max())
        assert off <= tolerance * size, (name, off, size)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("precision", "clip", "method", "tolerance"),
    [
        ("float64", 0.5, SEVERAL_CALLS, 1e-10),
        ("float32", None, LAYERWISE, 1e-6),
        pytest.param("float64", None, LAYERWISE, 1e-10, marks=pytest.mark.cluster),
        pytest.param("float32", 0.5, SEVERAL_CALLS, 1e-6, marks=pytest.mark.cluster),
    ],
)
def test_factored_updates_equal_plain_ones_over_100_steps(
    name: str, precision: str, clip: float | None, method: dict[str, Any], tolerance: float
) -> None:
    """Found: 2e-15 in float64, 4e-7 in float32."""
    settings = {"name": name, "lr": 1e-3, "gradient_clip": clip, "precision": precision, "method": method}
    check_close(state(stepped(100, **settings)), state(stepped(100, factored=False, **settings)), tolerance)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("clip", "method"), [(None, SEVERAL_CALLS), (0.5, LAYERWISE)])
def test_factored_updates_equal_plain_ones(name: str, clip: float | None, method: dict[str, Any]) -> None:
    settings = {"name": name, "lr": 1e-3, "gradient_clip": clip, "method": method}
    check_close(state(stepped(5, **settings)), state(stepped(5, factored=False, **settings)), 1e-12)


def test_a_clip_that_is_not_reached_changes_nothing() -> None:
    """But for the last bit: the gradient of features is computed apart from the sweep then."""
    free, clipped = (state(stepped(20, name="sgd", lr=1e-3, gradient_clip=clip)) for clip in (None, 1e6))
    check_close(clipped, free, 1e-13)


def heads_of(trainer: Trainer) -> list[Head]:
    heads = [module for module in trainer.method.modules() if isinstance(module, Head)]
    assert len(heads) == 4
    return heads


@pytest.mark.parametrize("clip", [None, 0.5])
def test_heads_keep_neither_factors_nor_a_gradient(clip: float | None) -> None:
    trainer = stepped(2, method=SEVERAL_CALLS, gradient_clip=clip)
    for head in heads_of(trainer):
        assert head.factors is None
        assert head.weight.grad is None
        assert not any(head.weight is tensor for tensor in trainer.update.dense.values())
        assert head.bias.grad is not None


def test_heads_keep_no_factors_after_a_step_that_failed() -> None:
    trainer = stepped(1)
    with pytest.raises(IndexError):
        trainer.step(1, torch.tensor([56]))
    assert all(head.factors is None for head in heads_of(trainer))


def test_drawing_without_gradients_leaves_no_factors() -> None:
    trainer = stepped(1)
    with trainer.update.collecting(), torch.no_grad():
        trainer.method.draw(Noise(1, "x", 0, range(3), dtype=torch.float64))
        assert all(head.factors == [] for head in heads_of(trainer))


def test_the_factors_of_several_calls_make_up_the_gradient() -> None:
    """Of a shard of a head, with the shapes (S, F) and (S, N, F) of features."""
    head = Head(5, 12, keyed_generator("head"), rows=range(3, 10)).double()
    random = torch.Generator().manual_seed(1)
    inputs = [torch.randn(*shape, 5, dtype=torch.float64, generator=random) for shape in ((4,), (3, 2))]

    def outputs() -> Tensor:
        return torch.stack([head(x, 1.5).sin().sum() for x in inputs]).sum()

    outputs().backward()
    weight, bias = head.weight.grad, head.bias.grad
    assert weight is not None
    head.weight.grad = head.bias.grad = None
    head.factors = []
    outputs().backward()
    pairs = [(factors.gradients, factors.features.flatten(0, -2)) for factors in head.factors]
    assert len(pairs) == 2
    total = torch.zeros(7, 5, dtype=torch.float64)
    for gradients, features in pairs:
        assert gradients is not None
        total += gradients.T @ features
    torch.testing.assert_close(total, weight, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(head.bias.grad, bias, rtol=1e-13, atol=1e-13)
    assert head.weight.grad is None


@pytest.mark.parametrize("outputs", [3, 1024, 1025, 2047, 2048, 5003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_shard_are_rows_of_the_whole(outputs: int, dtype: torch.dtype) -> None:
    """And the generator goes on from the same state, so that whatever is drawn next is the same."""
    features, shards = 7, 4
    random = keyed_generator("rows", outputs)
    whole, after = Head(features, outputs, random), torch.randn(4, generator=random)
    length = -(-outputs // shards)
    for shard in range(shards):
        rows = range(min(outputs, shard * length), min(outputs, (shard + 1) * length))
        random = keyed_generator("rows", outputs)
        head = Head(features, outputs, random, rows=rows, dtype=dtype)
        assert head.weight.dtype == dtype
        assert torch.equal(head.weight, whole.weight[rows.start : rows.stop].to(dtype))
        assert (head.outputs, len(head.bias)) == (outputs, len(rows))
        assert torch.equal(torch.randn(4, generator=random), after)
    assert whole.weight.std().item() == pytest.approx(7**-0.5, rel=0.5 if outputs == 3 else 0.05)


NARROW = {
    "heads": (BFLOAT16, {"name": "adam"}),
    "heads by sgd": (BFLOAT16, {"name": "sgd"}),
    "second moments of adam": (LAYERWISE, {"name": "adam", "second_moment": "bfloat16"}),
    "second moments of rmsprop": (LAYERWISE, {"name": "rmsprop", "second_moment": "bfloat16"}),
    "both": (BFLOAT16, {"name": "rmsprop", "second_moment": "bfloat16", "gradient_clip": 1.0}),
}


@pytest.mark.parametrize("name", NARROW)
class TestBfloat16:
    def trainer(self, name: str) -> Trainer:
        method, optimizer = NARROW[name]
        settings = experiment(method, precision="float32", epochs=6, optimizer={"lr": 0.01} | optimizer)
        return Trainer(settings, small_task())

    def narrow(self, trainer: Trainer) -> set[str]:
        return {name for name, value in state(trainer).items() if value.dtype == torch.bfloat16}

    def test_the_loss_falls_about_as_in_float32(self, name: str) -> None:
        """Over 36 steps; rounding is without bias, so the losses stay within 10 % of each other."""
        _, optimizer = NARROW[name]
        wide = {"lr": 0.01} | {key: value for key, value in optimizer.items() if key != "second_moment"}
        narrow = self.trainer(name)
        settings = experiment(LAYERWISE, precision="float32", epochs=6, optimizer=wide)
        losses = [
            [trainer._train_epoch(None)["train/loss"] for _ in range(6)]
            for trainer in (narrow, Trainer(settings, small_task()))
        ]
        assert losses[0][-1] < 0.8 * losses[0][0]
        assert losses[0][-1] == pytest.approx(losses[1][-1], rel=0.1)

    def test_it_is_saved_and_goes_on_bit_for_bit(self, name: str, tmp_path: Path) -> None:
        first, whole = self.trainer(name), self.trainer(name)
        for _ in range(2):
            first.run_epoch()
        first.save(tmp_path)
        second = self.trainer(name)
        assert second.resume(tmp_path)
        for trainer in (second, whole):
            while trainer.epoch < 4:
                trainer.run_epoch()
        heads = {f"generator.heads.{index}.weight" for index in range(4)}
        method, optimizer = NARROW[name]
        expected = set(heads) if method is BFLOAT16 else set()
        if "second_moment" in optimizer:
            entry = "exp_avg_sq" if optimizer["name"] == "adam" else "square_avg"
            expected |= {f"{head}.{entry}" for head in heads}
        assert self.narrow(second) == self.narrow(whole) == expected
        found, uninterrupted = state(second), state(whole)
        assert found.keys() == uninterrupted.keys()
        assert all(torch.equal(value, uninterrupted[key]) for key, value in found.items())
