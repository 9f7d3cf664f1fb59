"""Every estimate where the truth is known: w = A z + b of Gaussian z is Gaussian.

Joint estimates have to see the correlations that A makes. Those that go weight by weight are to give the divergence of
the factorised Gaussian with the same marginals, which is less.
"""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from bbh_dist.divergences import gaussian_moment_kl, knn_kl, knn_marginal_kl

PRIOR = 1.7
A = torch.tensor([[0.9, 0.2], [-0.7, 0.5]]).double()
SHIFT = torch.tensor([0.5, -1.0]).double()
COVARIANCE = A @ A.mT
JOINT = kl_divergence(
    MultivariateNormal(SHIFT, COVARIANCE), MultivariateNormal(torch.zeros(2).double(), PRIOR**2 * torch.eye(2).double())
).item()
MARGINAL = kl_divergence(Normal(SHIFT, COVARIANCE.diagonal().sqrt()), Normal(0.0, PRIOR)).sum().item()


def samples(count: int, seed: int) -> tuple[list[Tensor], list[Tensor]]:
    """Of the posterior and the prior, two weights in two tensors."""
    generator = torch.Generator().manual_seed(seed)
    z, v = torch.randn(2, count, 2, generator=generator, dtype=torch.float64)
    return list((z @ A.mT + SHIFT).split(1, dim=1)), list((PRIOR * v).split(1, dim=1))


def test_correlations_cost_more_than_the_tolerance_below() -> None:
    assert JOINT > MARGINAL + 0.25


@pytest.mark.parametrize(
    ("estimate", "truth"),
    [
        (knn_kl, JOINT),
        (knn_marginal_kl, MARGINAL),
        (lambda posterior, prior: gaussian_moment_kl(posterior, PRIOR), MARGINAL),
    ],
    ids=["knn", "knn_marginal", "gaussian"],
)
def test_mean_estimate_is_near_the_truth(
    estimate: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor], truth: float
) -> None:
    """20 repeats of S = 400: within 4 standard errors, below 0.04 each, and 0.03 for the neighbours' bias."""
    estimates = torch.stack([estimate(*samples(400, seed)) for seed in range(20)])
    error = estimates.std().item() / math.sqrt(20)
    assert error < 0.04
    assert estimates.mean().item() == pytest.approx(truth, abs=4 * error + 0.03)
