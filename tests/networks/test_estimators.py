"""Layers with noise for every example: their moments against those of sampled weights, and gradients by hand."""

import pytest
import torch
from torch import Tensor

from bbh_dist.networks import Conv2d, Dense, LayerSpec, flipout_layers, local_layers, sampled_layers

DRAWS = 4000
SPECS = {
    "dense": (Dense(3, 2), (2, 3)),
    "conv": (Conv2d(2, 3, 2), (2, 2, 3, 3)),
    "strided": (Conv2d(2, 3, 3, stride=2, padding=1, bias=False), (2, 2, 4, 3)),
}
GENERATOR = torch.Generator()


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


def noise(name: str, examples: int, size: int) -> Tensor:
    return normal(DRAWS, examples, size)


def signs(name: str, examples: int, size: int) -> Tensor:
    return normal(DRAWS, examples, size).sign()


class Layer:
    """A layer of Gaussian weights, off zero and of different spread, an input, and what sampled weights make of it."""

    def __init__(self, name: str) -> None:
        GENERATOR.manual_seed(1)
        spec, shape = SPECS[name]
        self.specs: dict[str, LayerSpec] = {"layer": spec}
        tensors = spec.tensors("layer")
        self.means = {tensor.name: 0.5 + normal(1, *tensor.shape) for tensor in tensors}
        self.stddevs = {tensor.name: 0.2 + normal(1, *tensor.shape).abs() for tensor in tensors}
        self.x = normal(1, *shape)

    def deviations(self, draws: int) -> dict[str, Tensor]:
        return {name: stddev * normal(draws, *stddev.shape[1:]) for name, stddev in self.stddevs.items()}

    def sampled(self) -> Tensor:
        weights = {name: self.means[name] + off for name, off in self.deviations(DRAWS).items()}
        return sampled_layers(self.specs, weights)("layer", self.x)

    def local(self) -> Tensor:
        variances = {name: stddev.square() for name, stddev in self.stddevs.items()}
        return local_layers(self.specs, self.means, variances, noise)("layer", self.x)

    def flipout(self) -> Tensor:
        return flipout_layers(self.specs, self.means, self.deviations(DRAWS), signs)("layer", self.x)


@pytest.fixture(params=SPECS)
def layer(request: pytest.FixtureRequest) -> Layer:
    return Layer(request.param)


@pytest.mark.parametrize("way", ["local", "flipout"])
def test_mean_and_variance_are_those_of_sampled_weights(layer: Layer, way: str) -> None:
    """n = 4,000 draws each: errors of a mean stddev / 63, of a variance 2.2 %; both compared within 5 of their sum."""
    found, sampled = getattr(layer, way)(), layer.sampled()
    assert found.shape == sampled.shape
    error = sampled.std(0) * (2 / DRAWS) ** 0.5
    assert ((found.mean(0) - sampled.mean(0)).abs() < 5 * error).all()
    torch.testing.assert_close(found.var(0), sampled.var(0), rtol=5 * 2 / DRAWS**0.5, atol=0)


@pytest.mark.parametrize("way", ["local", "flipout", "sampled"])
def test_examples_vary_together_only_under_sampled_weights(layer: Layer, way: str) -> None:
    """n = 4,000: error of a correlation of what is independent 0.016, tolerance 5 of them."""
    layer.x = layer.x[:, :1].expand(-1, 2, *layer.x.shape[2:])
    first, second = getattr(layer, way)().flatten(2).unbind(1)
    correlation = torch.corrcoef(torch.stack([first[:, 0], second[:, 0]]))[0, 1].item()
    assert correlation == pytest.approx(1 if way == "sampled" else 0, abs=5 / DRAWS**0.5)


def test_flipped_weights_are_one_weight_sample_for_each_example(layer: Layer) -> None:
    """What an example sees is a linear function of it, whose weights can be read off: their size never changes."""
    deviations = layer.deviations(1)
    zeros = {name: torch.zeros_like(mean) for name, mean in layer.means.items()}
    flips = signs("", layer.x.shape[1], layer.specs["layer"].inputs + layer.specs["layer"].outputs)[:1]
    flipped = flipout_layers(layer.specs, zeros, deviations, lambda *_: flips)("layer", layer.x)
    of_inputs, of_outputs = flips[0].split([layer.specs["layer"].inputs, layer.specs["layer"].outputs], 1)
    for example in range(layer.x.shape[1]):
        rows = of_outputs[example]
        weights = {"layer.bias": deviations.get("layer.bias", torch.zeros(1)) * rows}
        kernel = deviations["layer.weight"]
        outer = torch.outer(rows, of_inputs[example]).view(1, *kernel.shape[1:3], *[1] * (kernel.dim() - 3))
        weights["layer.weight"] = kernel * outer
        expected = sampled_layers(layer.specs, weights)("layer", layer.x[:, example : example + 1])
        torch.testing.assert_close(flipped[:, example : example + 1], expected, rtol=1e-12, atol=1e-12)


def test_local_gradient_is_finite_where_nothing_varies() -> None:
    layer = Layer("strided")
    parameters = [tensor.requires_grad_() for part in (layer.means, layer.stddevs) for tensor in part.values()]
    layer.x = torch.zeros_like(layer.x).requires_grad_()
    gradients = torch.autograd.grad(layer.local().sum(), [*parameters, layer.x])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
