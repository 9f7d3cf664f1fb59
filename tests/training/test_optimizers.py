"""Optimisers take a step that can be computed by hand; schedules are torch's."""

import math

import pytest
import torch
from torch import nn

from bbh_dist.config import Optimizer
from bbh_dist.training.optimizers import build_optimizer, schedule_factor

STEPS = 10_000


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
    optimizer = build_optimizer(Optimizer.model_validate({"name": name, "lr": 0.1}), [weights])
    weights.grad = torch.tensor([4.0, -0.5], dtype=torch.float64)
    optimizer.step()
    assert weights.tolist() == pytest.approx([-expected[0], expected[1]], rel=1e-6)


def test_sgd_has_momentum() -> None:
    weights = nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(Optimizer(name="sgd", lr=1.0), [weights])
    for _ in range(2):
        weights.grad = torch.ones(1)
        optimizer.step()
    assert weights.item() == pytest.approx(-2.9)


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
