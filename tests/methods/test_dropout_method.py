"""What dropout multiplies activations with, against masks made by hand; a rate of 0 is MAP."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.config import DropoutMethod, MapMethod
from bbh_dist.methods import MAP, Dropout, build_method
from bbh_dist.networks import Network, build_network
from bbh_dist.networks.mlp import MLP
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import SampleShare
from bbh_dist.training import objective

NOISE = Noise(seed=2, purpose="train", step=1, samples=range(3), dtype=torch.float64)
IMAGES = torch.randn(5, 2, 16, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 2, 1])


def built(network: Network, rate: float = 0.3) -> Dropout:
    config = DropoutMethod(name="dropout", rate=rate, prior_stddev=0.7)
    return Dropout(config, network, keyed_generator("initial")).double()


def masks(rate: float, name: str, shape: tuple[int, ...], noise: Noise = NOISE) -> Tensor:
    """(S, B, *shape) for the first 5 examples; images channels last."""
    size = torch.Size(shape).numel()
    integers = noise.endless_integers(f"dropout/{name}", range(5 * size)).long().view(len(noise), 5, size) + 2**15
    dropped = round(rate * 2**16)
    kept = (integers < 2**16 - dropped).double() / (1 - dropped / 2**16)
    return (
        kept.view(-1, 5, *shape) if len(shape) == 1 else kept.view(-1, 5, *shape[1:], shape[0]).permute(0, 1, 4, 2, 3)
    )


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.83])
def test_lenet_by_hand(rate: float) -> None:
    method = built(build_network("lenet", (2, 16, 18), 3), rate)
    w1, b1, w2, b2, w3, b3, w4, b4 = method.weights
    found = method(IMAGES, NOISE)
    for sample, logits in enumerate(found):
        x = torch.relu(F.max_pool2d(F.conv2d(IMAGES, w1, b1), 2))
        x = x * masks(rate, "conv2", (20, 6, 7))[sample]
        x = torch.relu(F.max_pool2d(F.conv2d(x, w2, b2), 2)).flatten(1)
        x = torch.relu(F.linear(x * masks(rate, "dense1", (x.shape[1],))[sample], w3, b3))
        x = F.linear(x * masks(rate, "dense2", (500,))[sample], w4, b4)
        torch.testing.assert_close(logits, x, rtol=1e-10, atol=1e-10)


def losses(method: MAP, config: Any) -> tuple[Tensor, list[Tensor]]:
    drawn = method.draw(replace(NOISE, samples=(0,)))
    loss = objective(
        method, config, IMAGES, LABELS, drawn, SampleShare(1), first=7, batch=5, examples=90, kl_weight=0.4
    ).part
    return loss.detach(), list(torch.autograd.grad(loss, list(method.weights)))


@pytest.mark.parametrize("name", ["lenet", "mlp:6-5", "wrn-10-1"])
def test_rate_0_is_map_bit_for_bit(name: str) -> None:
    network = build_network(name, (2, 16, 18), 3)
    settings = {"prior_stddev": 0.7}
    configs = MapMethod(name="map", **settings), DropoutMethod(name="dropout", rate=0.0, **settings)
    (expected, gradients), (loss, found) = (
        losses(build_method(config, network, keyed_generator("initial")).double(), config) for config in configs
    )
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, found, gradients))
    assert built(network, 0.0).fixed_samples == 1
    assert built(network, 0.1).fixed_samples is None


def test_a_network_without_inner_layers_has_nothing_to_drop() -> None:
    assert built(MLP((4,), 3, ())).fixed_samples == 1


def test_masks_are_those_of_the_place_and_the_sample() -> None:
    """Any share of examples and samples gives its part of the whole."""
    method = built(build_network("lenet", (2, 16, 18), 3))
    whole = method(IMAGES, NOISE)
    for first, stop in ((0, 2), (2, 5), (4, 5)):
        part = method(IMAGES[first:stop], NOISE, first=first)
        torch.testing.assert_close(part, whole[:, first:stop], rtol=1e-12, atol=1e-12)
    one = method(IMAGES, NOISE, SampleShare(3, groups=3, index=1))
    torch.testing.assert_close(one, whole[1:2], rtol=1e-12, atol=1e-12)


def test_the_mean_of_what_reaches_a_layer_is_what_map_gives_it() -> None:
    """One layer behind the masks: n = 4,000 samples, tolerance 5 standard errors of their mean."""
    method = built(MLP((4,), 2, (6,)))
    x = torch.linspace(-1, 2, 12, dtype=torch.float64).view(3, 4)
    logits = method(x, replace(NOISE, samples=range(4000)))
    expected = MAP.forward(method, x, None)[0]
    assert ((logits.mean(0) - expected).abs() < 5 * logits.std(0) / 4000**0.5).all()


def test_on_a_linear_model_the_variance_is_that_of_bernoulli_masks() -> None:
    """sum (w x)^2 rate / (1 - rate); n = 4,000: error of a variance about 2.2 %, tolerance 5 of them."""
    method = built(MLP((4,), 2, (6,)), rate=0.4)
    x = torch.linspace(0.2, 2, 12, dtype=torch.float64).view(3, 4)
    hidden = torch.relu(F.linear(x, method.weights[0], method.weights[1]))
    expected = F.linear(hidden.square(), method.weights[2].square()) * 0.4 / 0.6
    found = method(x, replace(NOISE, samples=range(4000))).var(0)
    torch.testing.assert_close(found, expected, rtol=0.12, atol=0)


def test_the_penalty_is_that_of_map() -> None:
    method = built(MLP((4,), 2, (6,)))
    kernels = [weight for weight in method.weights if weight.dim() > 1]
    expected = sum(kernel.square().sum() for kernel in kernels) / (2 * 0.7**2)
    torch.testing.assert_close(method.divergence(NOISE), expected, rtol=1e-12, atol=0)
