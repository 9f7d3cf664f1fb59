"""The single generator: one hypernetwork emits the whole network slice by slice, told which slice by a condition."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbh_dist.config import Generator
from bbh_dist.hypernets.generator import WeightGenerator
from bbh_dist.hypernets.trunk import Head, Trunk
from bbh_dist.networks.layers import TensorSpec
from bbh_dist.noise import Noise
from bbh_dist.sharding import Shards

_LARGEST_SLICE = 4096
_FEWEST_SLICES = 16


def slice_plan(weights: int) -> tuple[int, int]:
    """Number of slices and weights per slice that cover `weights`, exactly where a good divisor exists.

    The largest divisor of at most 4096 (and a 16th of the weights), if it is at least a quarter of that bound: the
    paper's 130 x 3,316 for LeNet and 231 x 2,003 for its ResNet. Otherwise the last slice is cut.
    """
    bound = max(1, min(_LARGEST_SLICE, weights // _FEWEST_SLICES))
    divisor = max(size for size in range(1, bound + 1) if weights % size == 0)
    if divisor * 4 >= bound:
        return weights // divisor, divisor
    count = math.ceil(weights / bound)
    return count, math.ceil(weights / count)


class _ScaledParts(torch.autograd.Function):
    """The parts (S, size) of flat numbers (S, sum of sizes), each times its scale: one sweep, and one backward.

    A product with a vector of scales takes 20 times as long as one with a number on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, flat: Tensor, sizes: list[int], scales: list[float]) -> tuple[Tensor, ...]:
        ctx.sizes, ctx.scales = sizes, scales
        return tuple(part * scale for part, scale in zip(flat.split(sizes, dim=1), scales, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        result = gradients[0].new_empty(len(gradients[0]), sum(ctx.sizes))
        for gradient, scale, part in zip(gradients, ctx.scales, result.split(ctx.sizes, dim=1), strict=True):
            torch.mul(gradient, scale, out=part)
        return result, None, None


class SingleGenerator(WeightGenerator):
    """One trunk and one head for all slices of the flattened weights.

    With `shared_noise` one z feeds all slices of a sample; otherwise every slice has its own. The parameters are few
    and the slices are the work, so shards split the slices.
    """

    splits_heads = False

    def __init__(
        self, config: Generator, tensors: Sequence[TensorSpec], generator: torch.Generator, shards: Shards
    ) -> None:
        super().__init__(tensors, config.noise_dim, config.shared_noise, shards)
        self.slices, self.slice_size = slice_plan(sum(tensor.size for tensor in tensors))
        self.trunk = Trunk(config.noise_dim, self.slices, config.hidden, generator)
        self.head = Head(config.hidden[-1], self.slice_size, generator)
        self.own_sizes = [len(part) for part in self.parts(shards.group.rank)]

    def forward(self, noise: Noise) -> list[Tensor]:
        """Weight samples, flat: for each tensor (S, own part of D_t)."""
        own = self.shards.part(self.slices)
        z = noise.normal("z", self.noise_dim * (1 if self.shared_noise else self.slices))
        if not self.shared_noise:
            z = z.unflatten(1, (self.slices, self.noise_dim))[:, own.start : own.stop]
        flat = self.head(self.trunk(z, own)).flatten(1)
        if flat.shape[1] > sum(self.own_sizes):  # the last slice is cut
            flat = flat[:, : sum(self.own_sizes)]
        return list(_ScaledParts.apply(flat, self.own_sizes, [tensor.scale for tensor in self.tensors]))

    def parts(self, shard: int) -> list[range]:
        """For each tensor the weights that lie in the shard's slices."""
        own = self.shards.part(self.slices, shard)
        first, last = own.start * self.slice_size, own.stop * self.slice_size
        ends = list(itertools.accumulate(tensor.size for tensor in self.tensors))
        return [
            range(min(max(first - start, 0), size), min(max(last - start, 0), size))
            for tensor, end in zip(self.tensors, ends, strict=True)
            for size, start in [(tensor.size, end - tensor.size)]
        ]
