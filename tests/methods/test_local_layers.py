"""Local reparameterisation against the moments of sampled weights, for every layer type."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.methods.local import example_normal, local_layers
from bbh_dist.networks import Conv2d, Dense, LayerSpec
from bbh_dist.noise import BLOCK, Noise

NOISE = Noise(3, "train", 5, (0, 1), dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moments(spec: LayerSpec) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    shapes = {tensor.name: (2, *tensor.shape) for tensor in spec.tensors("layer")}
    means = {name: random(*shape, seed=1) for name, shape in shapes.items()}
    return means, {name: 0.1 + random(*shape, seed=2).square() for name, shape in shapes.items()}


def patches(spec: LayerSpec, x: Tensor) -> Tensor:
    """What every output unit sees (S, B, places, inputs)."""
    if isinstance(spec, Dense):
        return x[:, :, None]
    flat = F.unfold(x.flatten(0, 1), spec.kernel, padding=spec.padding, stride=spec.stride)
    return flat.mT.unflatten(0, x.shape[:2])


@pytest.mark.parametrize(
    "spec",
    [Dense(5, 3), Conv2d(2, 3, 3), Conv2d(2, 3, 3, stride=2, padding=1, bias=False)],
    ids=["dense", "conv", "bare"],
)
def test_activations_have_the_moments_of_sums_over_independent_weights(spec: LayerSpec) -> None:
    """Mean sum x m, variance sum x^2 v, by hand for every place."""
    x = random(2, 4, 5, seed=4) if isinstance(spec, Dense) else random(2, 4, 2, 6, 5, seed=4)
    means, variances = moments(spec)
    found = local_layers({"layer": spec}, means, variances, NOISE, 7)("layer", x)
    seen = patches(spec, x)
    mean = torch.einsum("sbpi,soi->sbop", seen, means["layer.weight"].flatten(2))
    variance = torch.einsum("sbpi,soi->sbop", seen.square(), variances["layer.weight"].flatten(2))
    if "layer.bias" in means:
        mean = mean + means["layer.bias"][:, None, :, None]
        variance = variance + variances["layer.bias"][:, None, :, None]
    eps = example_normal(NOISE, "local/layer", found.shape[2:], 7, 4)
    expected = mean + variance.sqrt() * eps.view_as(mean)
    torch.testing.assert_close(found, expected.view_as(found), rtol=1e-10, atol=1e-10)


def test_where_nothing_varies_gradients_are_finite() -> None:
    spec = Conv2d(1, 1, 3, bias=False)
    means, variances = moments(spec)
    x = torch.zeros(2, 1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    variances["layer.weight"].requires_grad_()
    local_layers({"layer": spec}, means, variances, NOISE, 0)("layer", x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert not variances["layer.weight"].grad.any()


@pytest.mark.parametrize("shape", [(3,), (7, 31, 11)])
def test_an_examples_noise_is_its_own_whoever_draws_it(shape: tuple[int, ...]) -> None:
    """The large shape crosses blocks within an example and between examples."""
    whole = example_normal(NOISE, "x", shape, 0, 40)
    assert whole.shape == (2, 40, *shape)
    assert whole.numel() < 2 * 3 * BLOCK
    for first, count in ((0, 1), (13, 20), (39, 1), (20, 0)):
        assert torch.equal(example_normal(NOISE, "x", shape, first, count), whole[:, first : first + count])
    assert not torch.equal(whole[:, 0], whole[:, 1])
    assert not torch.equal(whole[0], whole[1])
