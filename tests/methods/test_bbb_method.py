"""Bayes by Backprop: its weights and start, its estimators of one gradient, and its bound on a known evidence."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from bbh_dist.config import BbbMethod
from bbh_dist.methods import BayesByBackprop
from bbh_dist.networks import Network, build_network
from bbh_dist.networks.mlp import MLP
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import SampleShare

PRIOR = 1.7
NETWORK = MLP((4,), 3, (5,))
NOISE = Noise(seed=2, purpose="train", step=1, samples=range(4), dtype=torch.float64)
X = torch.linspace(-1, 2, 24, dtype=torch.float64).view(6, 4)
ESTIMATORS = ("reparameterised", "local", "flipout")


def built(network: Network = NETWORK, **settings: Any) -> BayesByBackprop:
    config = BbbMethod.model_validate({"name": "bbb", "prior_stddev": PRIOR, **settings})
    return BayesByBackprop(config, network, keyed_generator("initial")).double()


def sigmas(method: BayesByBackprop) -> dict[str, set[float]]:
    """The standard deviations at the start, rounded, by tensor."""
    sizes = [tensor.size for tensor in method.network.tensors]
    parts = method.log_stddevs.detach().exp().split(sizes)
    return {t.name: {round(float(s), 6) for s in part} for t, part in zip(method.network.tensors, parts, strict=True)}


def test_sigma_starts_at_the_configured_variance() -> None:
    assert set().union(*sigmas(built(initial_log_variance=-5.0)).values()) == {round(math.exp(-2.5), 6)}
    assert set().union(*sigmas(built()).values()) == {round(math.exp(-4.5), 6)}


def test_sigma_starts_in_units_of_the_scale_of_each_tensor() -> None:
    found = sigmas(built(initial_stddev=0.3))
    assert found == {tensor.name: {round(0.3 * tensor.scale, 6)} for tensor in NETWORK.tensors}


def test_means_start_as_the_weights_of_map_do() -> None:
    """n = 4,000 weights in the kernel: error of the standard deviation 1.1 %, tolerance 5 %."""
    means = built(MLP((40,), 3, (100,))).means
    assert means[:4000].std().item() == pytest.approx((2 / 40) ** 0.5, rel=0.05)
    assert not means[4000:4100].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_predictions_have_weight_samples_of_the_posterior(estimator: str) -> None:
    """The same weights for all examples: mean + sigma * eps, put into a network by hand."""
    method, noise = built(estimator=estimator, initial_stddev=0.4), replace(NOISE, purpose="test")
    weights = method.means + method.log_stddevs.exp() * noise.normal("eps", NETWORK.size)
    w1, b1, w2, b2 = weights.split([20, 5, 15, 3], 1)
    hidden = torch.relu(X @ w1.view(-1, 5, 4).mT + b1[:, None])
    expected = hidden @ w2.view(-1, 3, 5).mT + b2[:, None]
    torch.testing.assert_close(method(X, method.draw(noise)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_divergence_equals_torch_distributions(estimator: str) -> None:
    method = built(estimator=estimator, initial_stddev=0.4)
    posterior = Normal(method.means, method.log_stddevs.exp())
    truth = kl_divergence(posterior, Normal(torch.zeros_like(method.means), PRIOR)).sum()
    assert method.divergence(method.draw(NOISE)).item() == pytest.approx(truth.item(), rel=1e-12)


def gradients(estimator: str, network: Network, x: Tensor, samples: int = 2000) -> Tensor:
    """(2 D,): the gradient of a mean over samples of a function of the logits of one layer, which is not linear."""
    method = built(network, estimator=estimator, initial_stddev=0.6)
    logits = method(x, method.draw(replace(NOISE, samples=range(samples))))
    return torch.cat(torch.autograd.grad(logits.log_softmax(-1)[..., 0].mean(), [method.means, method.log_stddevs]))


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_estimators_have_the_same_expected_gradient(estimator: str) -> None:
    """One layer, whose activations have the same distribution under all. How far 2,000 samples are
    off is seen from half of them; tolerance a tenth of the largest gradient."""
    network = MLP((4,), 3, ())
    expected, found = gradients("reparameterised", network, X), gradients(estimator, network, X)
    largest = expected.abs().max().item()
    error = (gradients("reparameterised", network, X, 1000) - expected).abs().max().item()
    assert error < 0.05 * largest
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1 * largest)


@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_noise_is_that_of_the_place_and_the_sample(estimator: str) -> None:
    images = torch.randn(5, 2, 16, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    method = built(build_network("lenet", (2, 16, 18), 3), estimator=estimator, initial_stddev=0.4)
    drawn = method.draw(NOISE)
    whole = method(images, drawn)
    for first, stop in ((0, 2), (2, 5), (4, 5)):
        part = method(images[first:stop], drawn, first=first)
        torch.testing.assert_close(part, whole[:, first:stop], rtol=1e-11, atol=1e-11)
    two = method(images, drawn, SampleShare(4, groups=2, index=1))
    torch.testing.assert_close(two, whole[2:], rtol=1e-11, atol=1e-11)


class LinearRegression:
    """y = X w + b + N(0, 0.4^2) with columns of X that are orthogonal to each other and to 1: the posterior factorises.

    Legend: N data, D weights with the bias.
    """

    noise = 0.4

    def __init__(self) -> None:
        columns = [[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
        self.x = 1.3 * torch.tensor(columns, dtype=torch.float64).T
        self.y = torch.tensor([0.9, -0.4, 1.7, 0.2], dtype=torch.float64)
        self.design = torch.cat([self.x, torch.ones(4, 1, dtype=torch.float64)], 1)
        precision = self.design.T @ self.design / self.noise**2 + torch.eye(4, dtype=torch.float64) / PRIOR**2
        self.variances = 1 / precision.diagonal()
        assert torch.allclose(precision, precision.diagonal().diag(), atol=1e-12)
        self.means = self.variances * (self.design.T @ self.y) / self.noise**2

    @property
    def evidence(self) -> float:
        covariance = PRIOR**2 * self.design @ self.design.T + self.noise**2 * torch.eye(4, dtype=torch.float64)
        return MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance).log_prob(self.y).item()

    def bound(self, estimator: str, means: Tensor, variances: Tensor) -> tuple[float, float]:
        """The ELBO from 800 samples, and its standard error."""
        method = built(MLP((3,), 1, ()), estimator=estimator)
        method.load_state_dict({"means": means, "log_stddevs": variances.log() / 2})
        drawn = method.draw(replace(NOISE, samples=range(800)))
        with torch.no_grad():
            terms = Normal(method(self.x, drawn)[..., 0], self.noise).log_prob(self.y).sum(1)
            return (terms.mean() - method.divergence(drawn)).item(), (terms.std() / len(terms) ** 0.5).item()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_bound_is_the_evidence_at_the_posterior_and_less_elsewhere(estimator: str) -> None:
    """Tolerance 4 standard errors; elsewhere it is below by KL(q || posterior)."""
    case = LinearRegression()
    bound, error = case.bound(estimator, case.means, case.variances)
    assert error < 0.08
    assert bound == pytest.approx(case.evidence, abs=4 * error)
    posterior = Normal(case.means, case.variances.sqrt())
    for shift, factor in ((0.2, 1.0), (0.0, 3.0), (0.1, 0.3)):
        means, variances = case.means + shift, case.variances * factor
        gap = kl_divergence(Normal(means, variances.sqrt()), posterior).sum().item()
        bound, error = case.bound(estimator, means, variances)
        assert bound == pytest.approx(case.evidence - gap, abs=4 * error)
        assert bound < case.evidence - 4 * error
