"""The two generators that have one hypernetwork per weight tensor: sliced layer-wise and layer-wise."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbh_dist.hypernets.generator import WeightGenerator
from bbh_dist.hypernets.trunk import Head, Trunk
from bbh_dist.networks.layers import TensorSpec
from bbh_dist.noise import Noise


class PerTensorGenerator(WeightGenerator):
    """A trunk and a head for every weight tensor; a subclass says in how many slices a tensor is emitted."""

    def __init__(
        self,
        tensors: Sequence[TensorSpec],
        hidden: Sequence[int],
        noise_dim: int,
        shared_noise: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__(tensors, noise_dim, shared_noise)
        slices = [self.slices(tensor) for tensor in tensors]
        self.trunks = nn.ModuleList(Trunk(noise_dim, count, hidden, generator) for count in slices)
        self.heads = nn.ModuleList(
            Head(hidden[-1], tensor.size // count, generator) for tensor, count in zip(tensors, slices, strict=True)
        )

    @staticmethod
    @abstractmethod
    def slices(tensor: TensorSpec) -> int:
        """Slices in which a tensor is emitted."""

    def forward(self, noise: Noise) -> list[Tensor]:
        """Weight samples, flat: for each tensor (S, D_t)."""
        return [
            head(trunk(self.z(noise, tensor))).flatten(1) * tensor.scale
            for tensor, trunk, head in zip(self.tensors, self.trunks, self.heads, strict=True)
        ]


class SlicedGenerator(PerTensorGenerator):
    """Sliced layer-wise: each slice holds the weights of one output unit; a bias vector is one slice."""

    @staticmethod
    def slices(tensor: TensorSpec) -> int:
        """Output units of a kernel, 1 for biases."""
        return tensor.shape[0] if tensor.is_kernel else 1


class LayerwiseGenerator(PerTensorGenerator):
    """Layer-wise: the head emits the whole tensor (222 million parameters on LeNet)."""

    @staticmethod
    def slices(tensor: TensorSpec) -> int:
        """Always 1."""
        return 1
