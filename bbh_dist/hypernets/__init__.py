"""Weight generators: single, sliced and layerwise."""

from collections.abc import Sequence

import torch

from bbh_dist.config import Generator
from bbh_dist.hypernets.generator import WeightGenerator
from bbh_dist.hypernets.per_tensor import LayerwiseGenerator, SlicedGenerator
from bbh_dist.hypernets.single import SingleGenerator, slice_plan
from bbh_dist.hypernets.trunk import Head, Trunk, Trunks
from bbh_dist.networks.layers import TensorSpec
from bbh_dist.sharding import ALONE, Shards

__all__ = [
    "Head",
    "LayerwiseGenerator",
    "SingleGenerator",
    "SlicedGenerator",
    "Trunk",
    "Trunks",
    "WeightGenerator",
    "build_generator",
    "slice_plan",
]

_KINDS: dict[str, type[SingleGenerator | SlicedGenerator | LayerwiseGenerator]] = {
    "single": SingleGenerator,
    "sliced": SlicedGenerator,
    "layerwise": LayerwiseGenerator,
}


def build_generator(
    config: Generator, tensors: Sequence[TensorSpec], generator: torch.Generator, shards: Shards = ALONE
) -> WeightGenerator:
    """The weight generator that an experiment names, or a shard of it; `generator` decides its initial parameters."""
    return _KINDS[config.kind](config, tensors, generator, shards)
