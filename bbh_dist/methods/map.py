"""Maximum a posteriori: the point estimate that every posterior is compared with."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bbh_dist.config import DropoutMethod, MapMethod
from bbh_dist.methods.method import Method
from bbh_dist.networks import Layer, Network, TensorSpec, sampled_layers
from bbh_dist.noise import Noise
from bbh_dist.sharding import ALONE, SampleShare, Shards

_SQUARED_AT_ONCE = 1 << 19


class MAP(Method):
    """One set of weights; the divergence is -log N(kernels; 0, prior_stddev^2) up to a constant: L2 on the kernels."""

    fixed_samples: int | None = 1

    def __init__(
        self, config: MapMethod | DropoutMethod, network: Network, generator: torch.Generator, shards: Shards = ALONE
    ) -> None:
        super().__init__()
        self.shards = shards
        self.prior_stddev = config.prior_stddev
        self.network = network
        self.weights = nn.ParameterList(map(nn.Parameter, initial_weights(network.tensors, generator)))

    def draw(self, noise: Noise) -> Any:
        """Nothing: a point estimate has one sample, whatever the noise."""

    def forward(self, inputs: Tensor, drawn: Any, samples: SampleShare | None = None, first: int = 0) -> Tensor:
        """Logits (1, B, C) of inputs (B, ...)."""
        return self.network(self.layers(), inputs[None])

    def layers(self) -> Layer:
        """The layers with this estimate's weights."""
        tensors = self.network.tensors
        flat = self.shards.weights([weight.view(1, -1) for weight in self.weights], [[t.size for t in tensors]])
        weights = {tensor.name: part.unflatten(1, tensor.shape) for tensor, part in zip(tensors, flat, strict=True)}
        return sampled_layers(self.network.layers, weights)

    def divergence(self, drawn: Any) -> Tensor:
        """Sum of squared kernel weights / (2 prior_stddev^2), nats."""
        return kernel_penalty(self.network.tensors, self.weights, self.prior_stddev)


def initial_weights(tensors: Iterable[TensorSpec], generator: torch.Generator) -> list[Tensor]:
    """A fresh network's weights: kernels from N(0, 2 / fan_in) (He), biases 0."""
    return [
        torch.randn(tensor.shape, generator=generator) * tensor.scale if tensor.is_kernel else torch.zeros(tensor.shape)
        for tensor in tensors
    ]


def kernel_penalty(tensors: Sequence[TensorSpec], weights: Iterable[Tensor], prior_stddev: float) -> Tensor:
    """Sum of squared kernel weights / (2 prior_stddev^2), nats, over all networks where weights are of several."""
    pairs = zip(tensors, weights, strict=True)
    squares = [_SumOfSquares.apply(weight) for tensor, weight in pairs if tensor.is_kernel]
    return torch.stack(squares).sum() / (2 * prior_stddev**2)


class _SumOfSquares(torch.autograd.Function):
    """What `weight.square().sum()` is, with squares that stay in the cache, and a gradient in one pass, not three."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        parts = weight.flatten().split(_SQUARED_AT_ONCE)
        return torch.stack([part.square().sum() for part in parts]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (weight,) = ctx.saved_tensors
        return weight * (2 * gradient)
