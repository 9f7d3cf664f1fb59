"""Weight generators: single, sliced and layerwise."""

from collections.abc import Sequence

import torch

from bbh_dist.config import Generator
from bbh_dist.hypernets.generator import WeightGenerator
from bbh_dist.hypernets.per_tensor import LayerwiseGenerator, SlicedGenerator
from bbh_dist.hypernets.single import SingleGenerator, slice_plan
from bbh_dist.networks.layers import TensorSpec

__all__ = [
    "LayerwiseGenerator",
    "SingleGenerator",
    "SlicedGenerator",
    "WeightGenerator",
    "build_generator",
    "slice_plan",
]

_KINDS: dict[str, type[SingleGenerator | SlicedGenerator | LayerwiseGenerator]] = {
    "single": SingleGenerator,
    "sliced": SlicedGenerator,
    "layerwise": LayerwiseGenerator,
}


def build_generator(config: Generator, tensors: Sequence[TensorSpec], generator: torch.Generator) -> WeightGenerator:
    """The weight generator that an experiment names; `generator` decides its initial parameters."""
    return _KINDS[config.kind](tensors, config.hidden, config.noise_dim, config.shared_noise, generator)
