import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from bbh_dist.divergences import gaussian_kl, semi_implicit_bound, semi_implicit_kl, semi_implicit_terms

PRIOR = 1.7
SIZES = (3, 1, 4)
STDDEVS = (0.5, 1.3, 2.4)
LOG_STDDEVS = torch.tensor(STDDEVS, dtype=torch.float64).log()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(samples: int, conditionals: int, spread: float = 0.8) -> tuple[list[Tensor], list[Tensor]]:
    """Means (M, D_t) around 0.6 and deviations (S, D_t) of three tensors."""
    means = [normal(conditionals, size, seed=size) * spread + 0.6 for size in SIZES]
    return means, [normal(samples, size, seed=10 + size) for size in SIZES]


def conditionals_of(sample: int, samples: int, inner: int) -> list[int]:
    """As the docstring has it: the following samples cyclically, then the others that serve as inner draws only."""
    return list(range(inner + 1)) if inner >= samples else [(sample + k) % samples for k in range(inner + 1)]


SIGMAS = torch.cat([torch.full((size,), s, dtype=torch.float64) for size, s in zip(SIZES, STDDEVS, strict=True)])
"""Of every weight."""


def explicit_bound(means: Sequence[Tensor], deviations: Sequence[Tensor], inner: int, stddev: Tensor = SIGMAS) -> float:
    """Mean of log 1/(K+1) sum_k N(w; m_k) - log p(w), its two terms that have a known mean replaced by that mean."""
    mean, eps = torch.cat(list(means), 1), torch.cat(list(deviations), 1)
    samples, bounds = len(eps), []
    for i in range(samples):
        w = mean[i] + stddev * eps[i]
        log_q = [Normal(mean[k], stddev).log_prob(w).sum() for k in conditionals_of(i, samples, inner)]
        log_mixture = torch.stack(log_q).exp().mean().log()
        log_prior = Normal(torch.zeros_like(w), PRIOR).log_prob(w).sum()
        eps_excess = 0.5 * (eps[i].square().sum() - len(w))
        prior_excess = (w.square() - mean[i].square() - stddev.square()).sum() / (2 * PRIOR**2)
        bounds.append(log_mixture - log_prior + eps_excess - prior_excess)
    return torch.stack(bounds).mean().item()


@pytest.mark.parametrize("inner", [0, 1, 2, 3, 4, 7])
def test_equals_the_explicit_densities_for_every_number_of_inner_samples(inner: int) -> None:
    """S = 4, so K = 0, below S - 1, at it, and above it, with three tensors of different sigma."""
    means, deviations = drawn(4, 8)
    value = semi_implicit_kl(means, deviations, LOG_STDDEVS, PRIOR, inner).item()
    assert value == pytest.approx(explicit_bound(means, deviations, inner), rel=1e-10)


@pytest.mark.parametrize("inner", [0, 2, 3, 7])
def test_weights_may_have_a_sigma_each(inner: int) -> None:
    """The first and the last tensor; the one between has one number."""
    means, deviations = drawn(4, 8)
    stddev = SIGMAS * torch.tensor([0.5, 1.1, 2.0, 1.0, 0.3, 0.8, 1.7, 1.2]).double()
    first, second, third = stddev.log().split(SIZES)
    value = semi_implicit_kl(means, deviations, [first, second[0], third], PRIOR, inner).item()
    assert value == pytest.approx(explicit_bound(means, deviations, inner, stddev), rel=1e-10)


def test_shards_of_weights_with_a_sigma_each_add_up() -> None:
    """The sum over two shards that hold 4 and 4 of 8 weights, where the whole is asked for."""
    means, deviations = (torch.cat(parts, 1) for parts in drawn(4, 6))
    log_stddev, halves = SIGMAS.log() + 0.3 * normal(8), (slice(0, 4), slice(4, 8))
    first, second = (
        semi_implicit_terms([means[:, half]], [deviations[:, half]], [log_stddev[half]], PRIOR, 5) for half in halves
    )
    whole = semi_implicit_kl([means], [deviations], [log_stddev], PRIOR, 5)
    torch.testing.assert_close(semi_implicit_bound(first + second, 5), whole, rtol=1e-12, atol=0)


def test_gradient_for_a_sigma_of_each_weight() -> None:
    means, deviations = drawn(4, 6)
    inputs = [tensor.requires_grad_() for tensor in (*means, *deviations, *(0.3 * normal(size) for size in SIZES))]

    def bound(*tensors: Tensor) -> Tensor:
        return semi_implicit_kl(tensors[:3], tensors[3:6], tensors[6:], PRIOR, 3)

    assert torch.autograd.gradcheck(bound, inputs)


def test_means_beyond_those_needed_are_not_used() -> None:
    means, deviations = drawn(4, 8)
    fewer = [mean[:6] for mean in means]
    values = [semi_implicit_kl(m, deviations, LOG_STDDEVS, PRIOR, 5) for m in (means, fewer)]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)


def conditional_kl(means: Sequence[Tensor], samples: int) -> float:
    parts = [gaussian_kl(m[:samples], s, PRIOR) for m, s in zip(means, LOG_STDDEVS, strict=True)]
    return torch.stack(parts).sum(0).mean().item()


def test_without_inner_samples_it_is_the_mean_gaussian_kl() -> None:
    means, deviations = drawn(4, 4)
    value = semi_implicit_kl(means, deviations, LOG_STDDEVS, PRIOR, 0).item()
    assert value == pytest.approx(conditional_kl(means, 4), rel=1e-12)


@pytest.mark.parametrize("inner", [1, 3, 6])
def test_with_equal_means_it_is_the_gaussian_kl(inner: int) -> None:
    means, deviations = drawn(4, 8, spread=0.0)
    value = semi_implicit_kl(means, deviations, LOG_STDDEVS, PRIOR, inner).item()
    assert value == pytest.approx(conditional_kl(means, 4), rel=1e-12)


def test_with_means_far_apart_it_is_the_gaussian_kl_less_log_of_their_number() -> None:
    means, deviations = drawn(4, 8, spread=1e3)
    value = semi_implicit_kl(means, deviations, LOG_STDDEVS, PRIOR, 6).item()
    assert value == pytest.approx(conditional_kl(means, 4) - math.log(7), rel=1e-12)


def test_bound_falls_to_the_known_kl_of_an_affine_generator() -> None:
    """w = A z + b + sigma eps is N(b, A A^T + sigma^2): here 3 weights in two tensors from a z of 2.

    20 repeats of S = 500: standard errors, from the repeats, of about 0.01; the bound's excess at K = 499 is a few
    1e-3 more. An upper bound for every K within 4 standard errors, falling in K, near at the end within 0.05.
    """
    map_WK, shift = torch.tensor([[0.9, 0.2], [-0.4, 0.7], [0.3, -0.5]]).double(), torch.tensor([0.5, -1.0, 0.2])
    stddevs = torch.tensor([0.4, 0.9]).double()
    noise = torch.diag(stddevs[[0, 0, 1]].square())
    posterior = MultivariateNormal(shift.double(), map_WK @ map_WK.mT + noise)
    prior = MultivariateNormal(torch.zeros(3).double(), PRIOR**2 * torch.eye(3).double())
    truth = kl_divergence(posterior, prior).item()

    def bounds(seed: int) -> Tensor:
        means = (normal(500, 2, seed=seed) @ map_WK.mT + shift).split([2, 1], dim=1)
        deviations = normal(500, 3, seed=1000 + seed).split([2, 1], dim=1)
        return torch.stack([semi_implicit_kl(means, deviations, stddevs.log(), PRIOR, k) for k in (0, 1, 3, 15, 499)])

    repeats = torch.stack([bounds(seed) for seed in range(20)])
    mean, error = repeats.mean(0), repeats.std(0) / math.sqrt(20)
    assert error.max().item() < 0.02
    assert (mean - truth > -4 * error).all()
    assert mean.tolist() == sorted(mean.tolist(), reverse=True)
    assert mean[0].item() > truth + 0.5
    assert mean[-1].item() == pytest.approx(truth, abs=0.05)


def test_elbo_of_a_conjugate_regression_is_below_the_evidence_and_meets_it_at_the_posterior() -> None:
    """One weight, y = x w + N(0, 0.5^2), posterior split as w = a z + b + sigma eps.

    10 repeats of S = 1,000, K = 999: standard error from the repeats, about 0.005. The likelihood is in closed form.
    """
    x, y = torch.tensor([0.5, -1.0, 2.0, 1.5]).double(), torch.tensor([0.9, -1.4, 3.1, 2.0]).double()
    noise_stddev = 0.5
    precision = 1 / PRIOR**2 + x.square().sum().item() / noise_stddev**2
    mean, variance = (x @ y).item() / noise_stddev**2 / precision, 1 / precision
    covariance = noise_stddev**2 * torch.eye(4).double() + PRIOR**2 * x[:, None] * x
    evidence = MultivariateNormal(torch.zeros(4).double(), covariance).log_prob(y).item()

    def elbo(centre: float, spread: float, stddev: float) -> tuple[float, float]:
        likelihood = Normal(x * centre, noise_stddev).log_prob(y).sum().item()
        likelihood -= (spread**2 + stddev**2) * x.square().sum().item() / (2 * noise_stddev**2)
        log_stddev = torch.tensor([math.log(stddev)]).double()
        pairs = [(normal(1000, 1, seed=s) * spread + centre, normal(1000, 1, seed=99 + s)) for s in range(10)]
        kls = torch.stack([semi_implicit_kl([m], [eps], log_stddev, PRIOR, 999) for m, eps in pairs])
        return likelihood - kls.mean().item(), kls.std().item() / math.sqrt(10)

    exact, error = elbo(mean, math.sqrt(0.7 * variance), math.sqrt(0.3 * variance))
    assert error < 0.02
    assert exact == pytest.approx(evidence, abs=0.01 + 4 * error)
    for centre, factor in ((mean + 0.2, 1.0), (mean, 2.0), (mean, 0.5)):
        worse, error = elbo(centre, factor * math.sqrt(0.7 * variance), factor * math.sqrt(0.3 * variance))
        assert worse < evidence - 0.1 + 4 * error


@pytest.mark.parametrize("inner", [0, 1, 3, 5])
def test_gradient(inner: int) -> None:
    means, deviations = drawn(4, 6)
    inputs = [tensor.requires_grad_() for tensor in (*means, *deviations, LOG_STDDEVS.clone())]

    def bound(*tensors: Tensor) -> Tensor:
        return semi_implicit_kl(tensors[:3], tensors[3:6], tensors[6], PRIOR, inner)

    assert torch.autograd.gradcheck(bound, inputs)


@pytest.mark.parametrize("gap", [1e-3, 3e-3])
def test_float32_is_precise_far_from_the_origin(gap: float) -> None:
    """D = 50,000 weights near 2, some 1e-3 apart per weight; the same float32 numbers go in at both precisions.

    The value is 81,000 nats, of which the mixture is 0.4 to 1.5; the gradient by the deviations is the mixture's alone.
    """
    means = (2 + normal(1, 50_000) + gap * normal(5, 50_000, seed=1)).float()
    deviations = normal(5, 50_000, seed=2).float()

    def value_and_gradient(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        eps = deviations.to(dtype, copy=True).requires_grad_()
        value = semi_implicit_kl([means.to(dtype)], [eps], torch.tensor([math.log(0.5)], dtype=dtype), PRIOR, 4)
        value.backward()
        return value.detach().double(), eps.grad.double()

    single, double = value_and_gradient(torch.float32), value_and_gradient(torch.float64)
    assert single[0].item() == pytest.approx(double[0].item(), rel=1e-6)
    assert (single[1] - double[1]).norm().item() < 1e-4 * double[1].norm().item()


def test_too_few_means() -> None:
    means, deviations = drawn(4, 5)
    with pytest.raises(ValueError, match="5 inner samples need 6 means, got 5"):
        semi_implicit_kl(means, deviations, LOG_STDDEVS, PRIOR, 5)
