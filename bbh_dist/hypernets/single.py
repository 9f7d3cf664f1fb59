"""The single generator: one hypernetwork emits the whole network slice by slice, told which slice by a condition."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bbh_dist.hypernets.generator import WeightGenerator
from bbh_dist.hypernets.trunk import Head, Trunk
from bbh_dist.networks.layers import TensorSpec
from bbh_dist.noise import Noise

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


class SingleGenerator(WeightGenerator):
    """One trunk and one head for all slices of the flattened weights.

    With `shared_noise` one z feeds all slices of a sample; otherwise every slice has its own.
    """

    def __init__(
        self,
        tensors: Sequence[TensorSpec],
        hidden: Sequence[int],
        noise_dim: int,
        shared_noise: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__(tensors, noise_dim, shared_noise)
        self.sizes = [tensor.size for tensor in tensors]
        self.slices, self.slice_size = slice_plan(sum(self.sizes))
        self.trunk = Trunk(noise_dim, self.slices, hidden, generator)
        self.head = Head(hidden[-1], self.slice_size, generator)

    def forward(self, noise: Noise) -> list[Tensor]:
        """Weight samples, flat: for each tensor (S, D_t)."""
        z = noise.normal("z", self.noise_dim * (1 if self.shared_noise else self.slices))
        if not self.shared_noise:
            z = z.unflatten(1, (self.slices, self.noise_dim))
        flat = self.head(self.trunk(z)).flatten(1)[:, : sum(self.sizes)]
        return [part * tensor.scale for part, tensor in zip(flat.split(self.sizes, dim=1), self.tensors, strict=True)]
