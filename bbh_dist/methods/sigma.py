"""Sigma of a semi-implicit posterior: one for each weight tensor, or one for each output unit, in one flat tensor.

Legend: T tensors, U_t output units of tensor t, D_t weights of it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bbh_dist.config import SemiImplicit
from bbh_dist.networks.layers import TensorSpec


def initial_log_stddevs(config: SemiImplicit, tensors: Sequence[TensorSpec]) -> Tensor:
    """Log sigma at the start, (T,) or (sum of U_t,)."""
    starts = [math.log(tensor.scale * config.initial_stddev) for tensor in tensors]
    return torch.tensor(
        [start for start, units in zip(starts, _units(config, tensors), strict=True) for _ in range(units)]
    )


def own_log_stddevs(
    config: SemiImplicit, log_stddevs: Tensor, tensors: Sequence[TensorSpec], own: Sequence[range]
) -> list[Tensor]:
    """For each tensor the number of all its weights, (), or one for each of a shard's own weights.

    A unit whose weights lie on several shards gets a term of its gradient from each.
    """
    if config.stddev == "tensor":
        return list(log_stddevs)
    by_unit = log_stddevs.split(_units(config, tensors))
    return [
        of_units[:, None].expand(-1, tensor.size // len(of_units)).flatten()[part.start : part.stop]
        for of_units, tensor, part in zip(by_unit, tensors, own, strict=True)
    ]


def _units(config: SemiImplicit, tensors: Sequence[TensorSpec]) -> list[int]:
    """How many sigmas each tensor has."""
    return [tensor.shape[0] if config.stddev == "unit" else 1 for tensor in tensors]
