"""The hidden layers of a weight generator, from noise (and a condition) to features."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAK = 0.1
"""Slope of the leaky ReLU below zero, as in the paper."""

_GAIN = math.sqrt(2 / (1 + LEAK**2))


class Trunk(nn.Module):
    """Leaky-ReLU layers over noise z and one of `conditions` conditions.

    A one-hot condition only selects a column of the first layer, so the column is kept as an embedding and added.
    Start: He's for leaky ReLU, so that features have a mean square of 1; noise and condition enter with equal variance.

    Legend: S weight samples, N conditions, K noise, F features.
    """

    def __init__(self, noise_dim: int, conditions: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()

        def normal(*shape: int, stddev: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * stddev)

        share = math.sqrt(0.5) if conditions > 1 else 1.0
        self.input = normal(hidden[0], noise_dim, stddev=_GAIN * share / math.sqrt(noise_dim))
        self.condition = normal(conditions, hidden[0], stddev=_GAIN * share) if conditions > 1 else None
        self.kernels = nn.ParameterList(
            normal(outputs, inputs, stddev=_GAIN / math.sqrt(inputs)) for inputs, outputs in itertools.pairwise(hidden)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(units)) for units in hidden)
        self.conditions = conditions

    def forward(self, z: Tensor) -> Tensor:
        """Features (S, N, F) of noise (S, K), or of noise (S, N, K) where every condition has its own."""
        x = F.linear(z, self.input, self.biases[0])
        if z.dim() == 2:
            x = x[:, None]
        if self.condition is not None:
            x = x + self.condition
        x = F.leaky_relu(x, LEAK)
        for kernel, bias in zip(self.kernels, self.biases[1:], strict=True):
            x = F.leaky_relu(F.linear(x, kernel, bias), LEAK)
        return x


class Head(nn.Module):
    """The last, linear layer: features to generated weights of unit variance at the start."""

    def __init__(self, features: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, features, generator=generator) / math.sqrt(features))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (..., O) of features (..., F)."""
        return F.linear(features, self.weight, self.bias)
