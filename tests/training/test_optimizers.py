"""Optimisers take a step that can be computed by hand; schedules are torch's."""

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bbh_dist.config import Optimizer
from bbh_dist.training.optimizers import DenseOptimizer, schedule_factor

STEPS = 10_000
SHAPES = (7,), (3, 5), (2, 3, 4), ()
TORCHS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "rmsprop": lambda tensors: torch.optim.RMSprop(tensors, alpha=0.9, eps=1e-5),
    "adam": lambda tensors: torch.optim.Adam(tensors, fused=True),
    "sgd": lambda tensors: torch.optim.SGD(tensors, momentum=0.9),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", (0.1, 0.1)),
        # The mean of squares starts at 0.1 g^2.
        ("rmsprop", (0.1 * 4 / (math.sqrt(0.1 * 16) + 1e-5), 0.1 * 0.5 / (math.sqrt(0.1 * 0.25) + 1e-5))),
        ("sgd", (0.4, 0.05)),
    ],
)
def test_the_first_step(name: str, expected: tuple[float, float]) -> None:
    weights = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = DenseOptimizer(Optimizer.model_validate({"name": name, "lr": 0.1}), {"weights": weights})
    weights.grad = torch.tensor([4.0, -0.5], dtype=torch.float64)
    optimizer.step()
    assert weights.tolist() == pytest.approx([-expected[0], expected[1]], rel=1e-6)


def test_sgd_has_momentum() -> None:
    weights = nn.Parameter(torch.zeros(1))
    optimizer = DenseOptimizer(Optimizer(name="sgd", lr=1.0), {"weights": weights})
    for _ in range(2):
        weights.grad = torch.ones(1)
        optimizer.step()
    assert weights.item() == pytest.approx(-2.9)


@pytest.mark.parametrize("name", sorted(TORCHS))
def test_steps_are_torchs(name: str) -> None:
    """Bit for bit, at rates that change, with a parameter that now and then has no gradient."""
    generator = torch.Generator().manual_seed(0)
    own, theirs = ([nn.Parameter(torch.ones(shape)) for shape in SHAPES] for _ in range(2))
    optimizer = DenseOptimizer(Optimizer.model_validate({"name": name}), {f"{i}": part for i, part in enumerate(own)})
    reference = TORCHS[name](theirs)
    for step in range(20):
        optimizer.zero_grad()
        reference.zero_grad()
        for number, (one, other) in enumerate(zip(own, theirs, strict=True)):
            if number or step % 3 == 1:
                one.grad = torch.randn(one.shape, generator=generator)
                other.grad = one.grad.clone()
        optimizer.lr = reference.param_groups[0]["lr"] = 0.01 / (step + 1)
        optimizer.step()
        reference.step()
        assert all(torch.equal(one, other) for one, other in zip(own, theirs, strict=True))
    for i, parameter in enumerate(theirs):
        held = {entry: value for entry, value in reference.state[parameter].items() if value is not None}
        assert optimizer.state[f"{i}"].keys() == held.keys()
        assert all(torch.equal(value, held[entry]) for entry, value in optimizer.state[f"{i}"].items())


def test_training_imports_neither_the_compiler_nor_scikit_learn() -> None:
    script = (
        "import sys; from bbh_dist.tasks import load_task; from bbh_dist.training import Trainer\n"
        "from pathlib import Path; from bbh_dist.config import Experiment\n"
        "described = {'task': 'digits5', 'method': {'name': 'bbh'}, 'network': 'mlp:8', 'epochs': 1}\n"
        "trainer = Trainer(Experiment.model_validate(described), load_task('digits5', Path()))\n"
        "print(sorted(trainer.run_epoch()), *(name in sys.modules for name in ('torch._dynamo', 'sklearn')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "val/outlier_auroc" in done.stdout
    assert done.stdout.endswith("] False False\n")


def test_one_cycle_is_torchs() -> None:
    """Torch counts its phases one step shorter, so the two differ by about a step of 10,000."""
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(dummy, max_lr=1.0, total_steps=STEPS, cycle_momentum=False)
    dummy.step()
    for step in range(STEPS - 1):
        if step % 500 == 0 or step > STEPS - 5:
            found = schedule_factor("one_cycle", step / STEPS)
            assert found == pytest.approx(reference.get_last_lr()[0], abs=5e-4), step
        reference.step()
    assert schedule_factor("one_cycle", 0) == pytest.approx(1 / 25)
    assert schedule_factor("one_cycle", 0.3) == 1
    assert schedule_factor("one_cycle", 1) == pytest.approx(4e-6)


def test_cosine_is_torchs() -> None:
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(dummy, T_max=20)
    dummy.step()
    for step in range(20):
        assert schedule_factor("cosine", step / 20) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        reference.step()


def test_constant() -> None:
    assert {schedule_factor("constant", progress) for progress in (0, 0.5, 0.99)} == {1.0}
