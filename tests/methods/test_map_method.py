import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from bbh_dist.config import MapMethod
from bbh_dist.methods import MAP
from bbh_dist.networks.mlp import MLP
from bbh_dist.noise import Noise
from bbh_dist.sharding import SampleShare
from bbh_dist.training import objective

CONFIG = MapMethod(name="map", prior_stddev=0.6)


def built(hidden: tuple[int, ...] = (), seed: int = 0) -> MAP:
    return MAP(CONFIG, MLP((7,), 3, hidden), torch.Generator().manual_seed(seed)).double()


def log_prior_of_kernels(method: MAP) -> Tensor:
    kernels = [weight for weight in method.parameters() if weight.dim() > 1]
    return sum(Normal(torch.zeros_like(kernel), 0.6).log_prob(kernel).sum() for kernel in kernels)


def test_divergence_is_minus_the_log_prior_up_to_a_constant() -> None:
    one, other = built((5,), seed=1), built((5,), seed=2)
    for bias in (weight for weight in other.parameters() if weight.dim() == 1):
        bias.data += 3  # biases have no prior
    difference = one.divergence(None) - other.divergence(None)
    expected = log_prior_of_kernels(other) - log_prior_of_kernels(one)
    assert difference.item() == pytest.approx(expected.item(), rel=1e-12)


def test_objective_without_hidden_units_is_ridge_logistic_regression() -> None:
    """Value and gradient by hand, with a KL weight and a number of examples that are not those of the batch."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (20,), generator=generator)
    method = built()
    loss = objective(method, CONFIG, x, labels, None, SampleShare(1), batch=20, examples=90, kl_weight=0.4).part
    loss.backward()

    kernel, bias = (weight.detach() for weight in method.weights)
    logits = x @ kernel.mT + bias
    p, wanted = logits.exp() / logits.exp().sum(1, keepdim=True), torch.eye(3, dtype=torch.float64)[labels]
    ridge = 0.4 / (90 * 0.6**2)
    expected = -(wanted * p.log()).sum() / 20 + 0.5 * ridge * kernel.square().sum()
    gradients = [(p - wanted).mT @ x / 20 + ridge * kernel, (p - wanted).mean(0)]
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close([weight.grad for weight in method.weights], gradients, rtol=1e-12, atol=1e-14)


def test_weights_start_as_a_fresh_network_does() -> None:
    """n = 700 weights in the kernel: error of the standard deviation 2.7 %, tolerance 10 %."""
    method = MAP(CONFIG, MLP((7,), 3, (100,)), torch.Generator().manual_seed(0))
    kernel, bias = method.weights[0], method.weights[1]
    assert kernel.std().item() == pytest.approx((2 / 7) ** 0.5, rel=0.1)
    assert not bias.any()


def test_a_point_estimate_has_one_sample_whatever_the_noise() -> None:
    method, x = built(), torch.ones(2, 7, dtype=torch.float64)
    drawn = [method.draw(Noise(seed, "train", 0, range(5))) for seed in (0, 1)]
    assert method(x, drawn[0]).shape == (1, 2, 3)
    assert torch.equal(method(x, drawn[0]), method(x, drawn[1], 5))
