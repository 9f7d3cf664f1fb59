"""The objective by hand, divided by N exactly once, and the same in any number of parts."""

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from small_runs import METHODS, experiment
from torch import Tensor

from bbh_dist.config import Anneal, BbhMethod
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.training import Workers, annealed, negative_log_likelihood, objective

N, BATCH, SAMPLES, KL, WEIGHT = 541, 7, 3, 1234.5, 0.3
ALONE = Workers()
# p of the true label, and of the other, for sample s and example b: (s + 1) and (b + 2) parts.
LOGITS = torch.tensor([[[s + 1, b + 2] for b in range(BATCH)] for s in range(SAMPLES)], dtype=torch.float64).log()
P = [[(s + 1) / (s + b + 3) for s in range(SAMPLES)] for b in range(BATCH)]
BY_HAND = {
    "mean_log": [-sum(math.log(p) for p in ps) / SAMPLES for ps in P],
    "log_mean": [-math.log(sum(ps) / SAMPLES) for ps in P],
}
LABELS = torch.zeros(BATCH, dtype=torch.int64)


def fixed_method() -> Method:
    """A method whose logits and divergence are the constants above."""

    class Fixed(SimpleNamespace):
        def __call__(self, inputs: Tensor, drawn: None, samples: int) -> Tensor:
            return LOGITS[:samples, inputs]

        def divergence(self, drawn: None) -> Tensor:
            return torch.tensor(KL, dtype=torch.float64)

    return cast(Method, Fixed())


@pytest.mark.parametrize("form", BY_HAND)
def test_the_likelihood_by_hand(form: str) -> None:
    assert negative_log_likelihood(LOGITS, LABELS, form).tolist() == pytest.approx(BY_HAND[form], abs=1e-12)


@pytest.mark.parametrize("form", BY_HAND)
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_the_objective_by_hand_divides_the_kl_by_n_once(form: str, size: int) -> None:
    config = BbhMethod(name="bbh", likelihood_samples=SAMPLES, likelihood=cast(Any, form))
    parts = []
    for rank in range(size):
        workers = Workers(rank, size)
        share = workers.share(torch.arange(BATCH))
        sizes = {"batch": BATCH, "examples": N, "kl_weight": WEIGHT}
        parts.append(objective(fixed_method(), config, share, LABELS[share], None, workers=workers, **sizes))
    expected = sum(BY_HAND[form]) / BATCH + WEIGHT * KL / N
    assert float(sum(loss.part for loss in parts)) == pytest.approx(expected, abs=1e-12)
    assert float(sum(loss.nll_sum for loss in parts)) == pytest.approx(sum(BY_HAND[form]), abs=1e-12)
    assert {float(loss.kl) for loss in parts} == {KL}


def loss_and_gradient(method: str, size: int) -> tuple[Tensor, list[Tensor]]:
    """Sums over the parts of `size` workers of one step on 7 examples, without a process group."""
    config = experiment(method).method
    model = build_method(config, build_network("mlp:5", (4,), 3), keyed_generator("initial")).double()
    inputs = torch.randn(BATCH, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) % 3
    total = torch.zeros((), dtype=torch.float64)
    for rank in range(size):
        workers = Workers(rank, size)
        drawn = model.draw(Noise(1, "train", 5, range(config.samples_per_step), dtype=torch.float64))
        share, its = workers.share(inputs), workers.share(labels)
        sizes = {"batch": BATCH, "examples": N, "kl_weight": WEIGHT}
        part = objective(model, config, share, its, drawn, workers=workers, **sizes).part
        part.backward()
        total += part.detach()
    return total, [cast(Tensor, parameter.grad) for parameter in model.parameters()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [2, 3, 8])
def test_parts_sum_to_the_objective_and_gradient_of_a_lone_worker(method: str, size: int) -> None:
    loss, gradients = loss_and_gradient(method, size)
    alone, alone_gradients = loss_and_gradient(method, 1)
    torch.testing.assert_close(loss, alone, rtol=1e-10, atol=1e-10)
    for found, expected in zip(gradients, alone_gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("total", [0, 1, 7, 10])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_row_is_in_exactly_one_share(total: int, size: int) -> None:
    shares = [Workers(rank, size).share(torch.arange(total)).tolist() for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("start", "epochs", "epoch", "expected"),
    [
        (0, 0, 0, 0.3),
        (0, 0, 9, 0.3),
        (5, 15, 0, 0),
        (5, 15, 4.99, 0),
        (5, 15, 5, 0),
        (5, 15, 12.5, 0.15),
        (5, 15, 20, 0.3),
        (5, 15, 500, 0.3),
        (2, 0, 1.99, 0),
        (2, 0, 2, 0.3),
        (0, 4, 1, 0.075),
    ],
)
def test_annealing(start: float, epochs: float, epoch: float, expected: float) -> None:
    assert annealed(0.3, Anneal(start=start, epochs=epochs), epoch) == pytest.approx(expected, abs=1e-15)
