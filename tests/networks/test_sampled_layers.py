"""S weight samples at once against plain torch, one sample at a time, in double precision."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.networks import Conv2d, Network, build_network, sampled_layers
from bbh_dist.networks.sampled import _grouped_conv2d, conv2d, dense, max_pool

SAMPLES = 3
CONVOLUTIONS = pytest.mark.parametrize("convolve", [conv2d, _grouped_conv2d])
SHARED = pytest.mark.parametrize("shared", [True, False])
COUNTS = pytest.mark.parametrize("samples", [1, SAMPLES])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def assert_same(result: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    """Values and gradients by all inputs within 1e-10."""
    torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
    cotangent = normal(*result.shape, seed=9).detach()
    gradients = [torch.autograd.grad(value, inputs, cotangent) for value in (result, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


@SHARED
@COUNTS
def test_dense(shared: bool, samples: int) -> None:
    x, weight, bias = normal(1 if shared else samples, 5, 4), normal(samples, 6, 4, seed=1), normal(samples, 6, seed=2)
    expected = [F.linear(x[0 if shared else s], weight[s], bias[s]) for s in range(samples)]
    assert_same(dense(x, weight, bias), torch.stack(expected), [x, weight, bias])


def test_samples_of_the_input_may_share_weights() -> None:
    """As activations do that are random themselves, by dropout."""
    x, weight, bias = normal(SAMPLES, 5, 4), normal(1, 6, 4, seed=1), normal(1, 6, seed=2)
    expected = [F.linear(x[s], weight[0], bias[0]) for s in range(SAMPLES)]
    assert_same(dense(x, weight, bias), torch.stack(expected), [x, weight, bias])
    x, weight, bias = normal(SAMPLES, 5, 2, 7, 8), normal(1, 4, 2, 3, 3, seed=1), normal(1, 4, seed=2)
    expected = [F.conv2d(x[s], weight[0], bias[0], 2, 1) for s in range(SAMPLES)]
    assert_same(conv2d(x, weight, bias, 2, 1), torch.stack(expected), [x, weight, bias])
    expected = [F.conv2d(x[s], weight[0]) for s in range(SAMPLES)]
    assert_same(conv2d(x, weight), torch.stack(expected), [x, weight])


@CONVOLUTIONS
@SHARED
@COUNTS
def test_convolution(convolve: Callable, shared: bool, samples: int) -> None:
    x = normal(1 if shared else samples, 5, 2, 7, 8)
    weight, bias = normal(samples, 4, 2, 3, 3, seed=1), normal(samples, 4, seed=2)
    expected = [F.conv2d(x[0 if shared else s], weight[s], bias[s]) for s in range(samples)]
    assert_same(convolve(x, weight, bias), torch.stack(expected), [x, weight, bias])


@CONVOLUTIONS
@SHARED
@COUNTS
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (2, 3, 2)])
def test_convolution_with_stride_and_padding_without_bias(
    convolve: Callable, shared: bool, samples: int, kernel: int, stride: int, padding: int
) -> None:
    x, weight = normal(1 if shared else samples, 2, 2, 7, 8), normal(samples, 4, 2, kernel, kernel, seed=1)
    expected = [F.conv2d(x[0 if shared else s], weight[s], stride=stride, padding=padding) for s in range(samples)]
    result = convolve(x, weight, stride=stride, padding=padding)
    assert_same(result, torch.stack(expected), [x, weight])


@pytest.mark.parametrize("bias", [True, False])
def test_a_sampled_layer_has_the_stride_padding_and_bias_of_its_specification(bias: bool) -> None:
    spec = Conv2d(2, 4, 3, stride=2, padding=1, bias=bias)
    tensors = spec.tensors("conv")
    assert [tensor.name for tensor in tensors] == ["conv.weight", "conv.bias"][: 1 + bias]
    weights = {t.name: normal(SAMPLES, *t.shape, seed=i) for i, t in enumerate(tensors)}
    x = normal(1, 5, 2, 7, 8)
    expected = conv2d(x, weights["conv.weight"], weights.get("conv.bias"), stride=2, padding=1)
    assert torch.equal(sampled_layers({"conv": spec}, weights)("conv", x), expected)


def test_max_pool() -> None:
    x = normal(SAMPLES, 2, 4, 7, 6)
    assert_same(max_pool(x, 2), torch.stack([F.max_pool2d(image, 2) for image in x]), [x])


def weights_of(network: Network, samples: int) -> dict[str, Tensor]:
    return {t.name: normal(samples, *t.shape, seed=i) for i, t in enumerate(network.tensors)}


def plain_lenet(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    for name in ("conv1", "conv2"):
        x = F.max_pool2d(torch.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])), 2)
    x = torch.relu(F.linear(x.flatten(1), weights["dense1.weight"], weights["dense1.bias"]))
    return F.linear(x, weights["dense2.weight"], weights["dense2.bias"])


def plain_mlp(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    x = torch.relu(F.linear(x.flatten(1), weights["dense1.weight"], weights["dense1.bias"]))
    x = torch.relu(F.linear(x, weights["dense2.weight"], weights["dense2.bias"]))
    return F.linear(x, weights["dense3.weight"], weights["dense3.bias"])


@pytest.mark.parametrize(
    ("name", "plain", "shape"), [("lenet", plain_lenet, (2, 17, 16)), ("mlp:6-5", plain_mlp, (1, 4, 4))]
)
@COUNTS
def test_whole_networks(name: str, plain: Callable, shape: tuple[int, ...], samples: int) -> None:
    network, x = build_network(name, shape, 4), normal(1, 3, *shape, seed=99)
    weights = weights_of(network, samples)
    expected = [plain(x[0], {name: part[s] for name, part in weights.items()}) for s in range(samples)]
    scale = torch.stack(expected).detach().abs().max()  # weights of unit variance make logits of thousands
    result = network(sampled_layers(network.layers, weights), x)
    assert_same(result / scale, torch.stack(expected) / scale, [x, *weights.values()])


@pytest.mark.parametrize(("name", "shape"), [("lenet", (1, 16, 16)), ("mlp", (1, 4, 4)), ("wrn-10-1", (1, 8, 8))])
@COUNTS
def test_an_empty_batch_has_empty_logits_and_zero_gradients(name: str, shape: tuple[int, ...], samples: int) -> None:
    network = build_network(name, shape, 4)
    weights = weights_of(network, samples)
    logits = network(sampled_layers(network.layers, weights), torch.zeros(1, 0, *shape, dtype=torch.float64))
    assert logits.shape == (samples, 0, 4)
    gradients = torch.autograd.grad(logits.sum(), list(weights.values()))
    assert all((gradient == 0).all() for gradient in gradients)
