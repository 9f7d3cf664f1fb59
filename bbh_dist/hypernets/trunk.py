"""The hidden layers of a weight generator, from noise (and a condition) to features."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbh_dist.allocator import on_huge_pages
from bbh_dist.factored import product
from bbh_dist.products import linear

LEAK = 0.1
"""Slope of the leaky ReLU below zero, as in the paper."""

_BLOCK_ROWS = 1024
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

    def forward(self, z: Tensor, own: range | None = None) -> Tensor:
        """Features (S, N, F) of noise (S, K), or of noise (S, N, K) where every condition has its own.

        With `own` only of those conditions.
        """
        x = F.linear(z, self.input, self.biases[0])
        if z.dim() == 2:
            x = x[:, None]
        if self.condition is not None:
            x = x + (self.condition if own is None else self.condition[own.start : own.stop])
        elif own is not None:
            x = x[:, own.start : own.stop]
        x = F.leaky_relu(x, LEAK)
        for kernel, bias in zip(self.kernels, self.biases[1:], strict=True):
            x = F.leaky_relu(linear(x, kernel, bias), LEAK)
        return x


class Trunks(nn.ModuleList):
    """A trunk for each of several heads, in one call, so that they can be compiled into one program."""

    def forward(self, z: Sequence[Tensor], own: Sequence[range | None]) -> list[Tensor]:
        """Features (S, N, F) of each trunk's noise, only of its `own` conditions where those are given."""
        return [trunk(noise, part) for trunk, noise, part in zip(self, z, own, strict=True)]


@dataclass
class Factors:
    """The gradient of a head in one call as an outer product: gradients (S, D)^T @ features (S, F)."""

    features: Tensor
    """With the graph that made them."""
    gradients: Tensor | None = None
    """None until the backward pass has come by."""


class Head(nn.Module):
    """The last, linear layer: features to generated weights of unit variance at the start.

    With `rows` it has only those of the outputs, the same as in the whole. Where `factors` is a list, the backward pass
    leaves there what makes up the gradient of `weight`, and stops: no gradient of `weight` or features is computed.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        generator: torch.Generator,
        rows: range | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.outputs, self.rows = outputs, range(outputs) if rows is None else rows
        self.weight = nn.Parameter(_normal_rows(features, outputs, self.rows, generator, dtype or torch.float32))
        self.bias = nn.Parameter(torch.zeros(len(self.rows)))
        self.factors: list[Factors] | None = None

    def forward(self, features: Tensor, scale: float = 1.0) -> Tensor:
        """Own outputs (..., O) of features (..., F), times `scale`, which is cheaper on features than on outputs."""
        features, bias = features * scale, self.bias * scale
        if self.factors is None:
            return linear(features, self.weight.to(features.dtype), bias)
        factors = Factors(features)
        if torch.is_grad_enabled():
            self.factors.append(factors)
        return _FactoredProduct.apply(features.detach(), bias, self.weight.detach(), factors)


class _FactoredProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, bias: Tensor, weight: Tensor, factors: Factors) -> Tensor:
        ctx.factors = factors
        return product(features.flatten(0, -2), weight, bias).unflatten(0, features.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        rows = gradient.flatten(0, -2)
        ctx.factors.gradients = rows
        return None, rows.sum(0), None, None


def _normal_rows(features: int, outputs: int, rows: range, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Some rows of N(0, 1 / features) numbers (outputs, features), drawn in blocks of which others' rows are dropped.

    Blocks are multiples of 16 numbers, so the stream is that of one large draw.
    """
    result = on_huge_pages(torch.empty(len(rows), features, dtype=dtype))
    if result.is_meta:  # nothing to draw
        return result
    if rows == range(outputs) and dtype == torch.float32:
        return result.normal_(generator=generator).div_(math.sqrt(features))
    blocks = max(1, outputs // _BLOCK_ROWS)
    for index in range(blocks):
        first = index * _BLOCK_ROWS
        last = outputs if index == blocks - 1 else first + _BLOCK_ROWS
        block = torch.randn(last - first, features, generator=generator).div_(math.sqrt(features))
        start, stop = max(first, rows.start), min(last, rows.stop)
        if start < stop:
            result[start - rows.start : stop - rows.start] = block[start - first : stop - first]
    return result
