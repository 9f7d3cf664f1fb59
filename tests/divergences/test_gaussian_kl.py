import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from bbh_dist.divergences import factorised_gaussian_kl, gaussian_kl, gaussian_moment_kl, gaussian_samples

PRIOR = 1.7


def test_equals_torch_distributions_for_each_sample() -> None:
    """Two tensors of different sizes, means off zero, standard deviations on both sides of the prior's."""
    generator = torch.Generator().manual_seed(0)
    total, expected = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    for size, stddev in ((7, 0.3), (3, 2.9)):
        mean = torch.randn(4, size, generator=generator, dtype=torch.float64) * 1.5 + 0.8
        total += gaussian_kl(mean, torch.tensor(math.log(stddev), dtype=torch.float64), PRIOR)
        prior = Normal(torch.zeros_like(mean), PRIOR)
        expected += kl_divergence(Normal(mean, torch.full_like(mean, stddev)), prior).sum(1)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=0)


def test_a_standard_deviation_for_each_weight_equals_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(4, 6, generator=generator, dtype=torch.float64) * 1.5 + 0.8
    stddev = torch.tensor([0.2, 0.5, 1.0, 1.7, 2.5, 4.0]).double()
    expected = kl_divergence(Normal(mean, stddev), Normal(torch.zeros_like(mean), PRIOR)).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, stddev.log(), PRIOR), expected, rtol=1e-12, atol=0)


def test_is_zero_at_the_prior_and_nowhere_else() -> None:
    mean = torch.zeros(1, 5, dtype=torch.float64)
    at_prior = torch.tensor(math.log(PRIOR), dtype=torch.float64)
    assert gaussian_kl(mean, at_prior, PRIOR).item() == pytest.approx(0, abs=1e-14)
    for moved, log_stddev in ((mean + 0.1, at_prior), (mean, at_prior + 0.1), (mean, at_prior - 0.1)):
        assert gaussian_kl(moved, log_stddev, PRIOR).item() > 0.005


def parameters() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means (9,) off zero, log standard deviations (9,) on both sides of the prior's, and eps (4, 9)."""
    generator = torch.Generator().manual_seed(5)
    mean, log_stddev, eps = (torch.randn(*shape, generator=generator).double() for shape in ((9,), (9,), (4, 9)))
    return (1.5 * mean + 0.8).requires_grad_(), log_stddev.requires_grad_(), eps


def test_factorised_kl_equals_torch_distributions() -> None:
    mean, log_stddev, _ = parameters()
    truth = kl_divergence(Normal(mean, log_stddev.exp()), Normal(torch.zeros_like(mean), PRIOR)).sum()
    found = factorised_gaussian_kl(mean, log_stddev, PRIOR)
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(value, [mean, log_stddev]) for value in (found, truth)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("samples", [1, 4])
def test_samples_with_their_kl_are_what_autograd_makes_of_the_formulas(samples: int) -> None:
    """Values, and the gradient of a function of both."""
    mean, log_stddev, eps = parameters()
    eps, weight = eps[:samples], torch.linspace(-1, 2, 9 * samples, dtype=torch.float64).view(samples, 9)
    normal = Normal(mean, log_stddev.exp())
    expected = mean + eps * normal.stddev, kl_divergence(normal, Normal(torch.zeros_like(mean), PRIOR)).sum()
    found = gaussian_samples(mean, log_stddev, eps, PRIOR)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    losses = [(weight * drawn.sin()).sum() + 0.3 * kl**2 for drawn, kl in (found, expected)]
    gradients = [torch.autograd.grad(loss, [mean, log_stddev]) for loss in losses]
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("samples", [2, 3, 5])
def test_moment_estimate_is_unbiased_for_a_factorised_gaussian(samples: int) -> None:
    """n = 2,000 repeats; tolerance 4 standard errors of their mean, which is far below the corrections it checks."""
    generator = torch.Generator().manual_seed(samples)
    truths = [(30, 0.9, 0.4), (20, -0.5, 2.6)]  # weights, mean, standard deviation
    truth = sum(size * kl_divergence(Normal(mean, std), Normal(0.0, PRIOR)).item() for size, mean, std in truths)

    def estimate() -> torch.Tensor:
        parts = [torch.randn(samples, n, generator=generator, dtype=torch.float64) * s + m for n, m, s in truths]
        return gaussian_moment_kl(parts, PRIOR)

    estimates = torch.stack([estimate() for _ in range(2000)])
    error = estimates.std().item() / math.sqrt(len(estimates))
    assert error < 0.02 * truth
    assert estimates.mean().item() == pytest.approx(truth, abs=4 * error)


def test_moment_estimate_of_weights_that_do_not_vary_is_finite() -> None:
    constant = torch.ones(3, 4, requires_grad=True)
    loss = gaussian_moment_kl([constant], prior_stddev=1e5)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(constant.grad).all()


def test_moment_estimate_gradient() -> None:
    samples = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: gaussian_moment_kl([w[:, :1], w[:, 1:]], PRIOR), samples)


def test_moment_estimate_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="at least 2 weight samples, got 1"):
        gaussian_moment_kl([torch.ones(1, 4)], 1.0)
