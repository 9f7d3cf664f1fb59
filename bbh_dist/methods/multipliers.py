"""Which weights a multiplier multiplies: one for each input of a dense layer, one for each filter of a convolution.

Source: Louizos & Welling 2017, equations 4 and 5.
Legend: S weight samples, U units with a multiplier, R weights of each of them, O outputs, I inputs.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from bbh_dist.networks import Network, TensorSpec


@dataclass(frozen=True)
class Multiplied:
    """A kernel and its units."""

    tensor: TensorSpec

    @property
    def is_dense(self) -> bool:
        """Whether units are inputs; else they are filters."""
        return len(self.tensor.shape) == 2

    @property
    def units(self) -> int:
        """U."""
        return self.tensor.shape[1 if self.is_dense else 0]

    @property
    def weights_per_unit(self) -> int:
        """R."""
        return math.prod(self.tensor.shape) // self.units

    def matrix(self, flat: Tensor) -> Tensor:
        """A view (U, R) of something per weight (D_t,)."""
        kernel = flat.view(self.tensor.shape)
        return kernel.mT if self.is_dense else kernel.flatten(1)

    def spread(self, z: Tensor) -> Tensor:
        """Multipliers (S, U) in a shape that multiplies kernels (S, *shape)."""
        return z[:, None] if self.is_dense else z.view(*z.shape, *[1] * (len(self.tensor.shape) - 1))


def multiplied_kernels(network: Network) -> list[Multiplied]:
    """The network's kernels in the order of its tensors."""
    return [Multiplied(tensor) for tensor in network.tensors if tensor.is_kernel]
