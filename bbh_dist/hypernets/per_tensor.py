"""The two generators that have one hypernetwork per weight tensor: sliced layer-wise and layer-wise."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbh_dist.config import Generator
from bbh_dist.hypernets.generator import WeightGenerator
from bbh_dist.hypernets.trunk import Head, Trunk, Trunks
from bbh_dist.networks.layers import TensorSpec
from bbh_dist.noise import Noise
from bbh_dist.sharding import Shards


class SlicedGenerator(WeightGenerator):
    """Sliced layer-wise: each slice holds the weights of one output unit; a bias vector is one slice.

    The parameters are few and the slices are the work, so shards split a tensor's slices.
    """

    splits_heads = False

    def __init__(
        self, config: Generator, tensors: Sequence[TensorSpec], generator: torch.Generator, shards: Shards
    ) -> None:
        super().__init__(tensors, config.noise_dim, config.shared_noise, shards)
        hidden = config.hidden
        self.slices = [tensor.shape[0] if tensor.is_kernel else 1 for tensor in tensors]
        self.trunks = Trunks(Trunk(config.noise_dim, count, hidden, generator) for count in self.slices)
        self.heads = nn.ModuleList(
            Head(hidden[-1], tensor.size // count, generator)
            for tensor, count in zip(tensors, self.slices, strict=True)
        )

    def forward(self, noise: Noise) -> list[Tensor]:
        """Weight samples, flat: for each tensor (S, own part of D_t)."""
        own = [self.shards.part(count) for count in self.slices]
        features = self.trunks([self.z(noise, tensor) for tensor in self.tensors], own)
        parts = zip(self.tensors, features, self.heads, strict=True)
        return [head(x, tensor.scale).flatten(1) for tensor, x, head in parts]

    def parts(self, shard: int) -> list[range]:
        """For each tensor the weights of the shard's slices."""
        sizes = [tensor.size // count for tensor, count in zip(self.tensors, self.slices, strict=True)]
        own = [self.shards.part(count, shard) for count in self.slices]
        return [range(part.start * size, part.stop * size) for part, size in zip(own, sizes, strict=True)]


class LayerwiseGenerator(WeightGenerator):
    """Layer-wise: the head emits the whole tensor (222 million parameters on LeNet).

    The parameters are what is split: a shard holds its rows of every head, and all trunks.
    """

    splits_heads = True

    def __init__(
        self, config: Generator, tensors: Sequence[TensorSpec], generator: torch.Generator, shards: Shards
    ) -> None:
        super().__init__(tensors, config.noise_dim, config.shared_noise, shards)
        hidden = config.hidden
        self.trunks = Trunks(Trunk(config.noise_dim, 1, hidden, generator) for _ in tensors)
        dtype = torch.bfloat16 if config.head_precision == "bfloat16" else None
        self.heads = nn.ModuleList(
            Head(hidden[-1], tensor.size, generator, rows=shards.part(tensor.size), dtype=dtype) for tensor in tensors
        )

    def forward(self, noise: Noise) -> list[Tensor]:
        """Weight samples, flat: for each tensor (S, own part of D_t)."""
        features = self.trunks([self.z(noise, tensor) for tensor in self.tensors], [None] * len(self.tensors))
        parts = zip(self.tensors, features, self.heads, strict=True)
        return [head(x, tensor.scale).flatten(1) for tensor, x, head in parts]

    def parts(self, shard: int) -> list[range]:
        """For each tensor the weights whose rows the shard holds."""
        return [self.shards.part(tensor.size, shard) for tensor in self.tensors]
