"""The objective by hand, divided by N exactly once; the likelihood the same in any number of parts."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from bbh_dist.config import Anneal, BbhMethod
from bbh_dist.methods import Method
from bbh_dist.sharding import SampleShare
from bbh_dist.tasks import Categorical
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
        def prefetch(self, drawn: None, samples: SampleShare) -> None:
            pass

        def __call__(self, inputs: Tensor, drawn: None, samples: SampleShare, first: int) -> Tensor:
            return LOGITS[list(samples.own)][:, inputs]

        def begin_divergence(self, drawn: None) -> Callable[[], Tensor]:
            return lambda: torch.tensor(KL, dtype=torch.float64)

    return cast(Method, Fixed(independent=False))


@pytest.mark.parametrize("form", BY_HAND)
def test_the_likelihood_by_hand(form: str) -> None:
    log_p = Categorical(2).log_prob(LOGITS, LABELS)
    assert negative_log_likelihood(log_p, form).tolist() == pytest.approx(BY_HAND[form], abs=1e-12)


@pytest.mark.parametrize("form", BY_HAND)
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_the_objective_by_hand_divides_the_kl_by_n_once(form: str, size: int) -> None:
    config = BbhMethod(name="bbh", likelihood_samples=SAMPLES, likelihood=cast(Any, form))
    parts = []
    for rank in range(size):
        workers = Workers(rank, size)
        samples = workers.samples(SAMPLES, splittable=form == "mean_log")
        share = torch.tensor(workers.examples(BATCH, samples), dtype=torch.int64)
        sizes = {"batch": BATCH, "examples": N, "kl_weight": WEIGHT}
        parts.append(objective(fixed_method(), config, share, LABELS[share], None, samples, **sizes))
    likelihood = [float(loss.part) - WEIGHT * KL / N for loss in parts]
    assert sum(likelihood) == pytest.approx(sum(BY_HAND[form]) / BATCH, abs=1e-12)
    assert float(sum(loss.nll_sum for loss in parts)) == pytest.approx(sum(BY_HAND[form]), abs=1e-12)
    assert {float(loss.kl) for loss in parts} == {KL}


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
