"""Local reparameterisation: what Gaussian weights make of an example, drawn for each example instead of the weights.

Activations of a layer with independent Gaussian weights are Gaussian: their means are what the weights' means make of
the inputs, their variances what the weights' variances make of the squared inputs. Gradients vary less than with one
weight sample for a whole batch; but no two examples see the same weights.
Source: Kingma, Salimans & Welling 2015, section 2.3; for convolutions Molchanov et al. 2017, equation 17.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bbh_dist.networks import Layer, LayerSpec, sampled_layers
from bbh_dist.noise import BLOCK, Noise

_LEAST_VARIANCE = 1e-16
"""Where an input is 0 and there is no bias, nothing varies; the root has no derivative there."""


def local_layers(
    layers: Mapping[str, LayerSpec],
    means: Mapping[str, Tensor],
    variances: Mapping[str, Tensor],
    noise: Noise,
    first: int,
) -> Layer:
    """The function `layer(name, x)` over Gaussian weights, whose moments (S, *shape) are named as the weights are.

    The first example of a call is number `first` of its batch or data set, which with the noise decides what is drawn.
    """
    mean_of, variance_of = sampled_layers(layers, means), sampled_layers(layers, variances)

    def layer(name: str, x: Tensor) -> Tensor:
        mean, variance = mean_of(name, x), variance_of(name, x.square())
        deviation = example_normal(noise, f"local/{name}", mean.shape[2:], first, mean.shape[1])
        return torch.addcmul(mean, deviation, variance.clamp_min(_LEAST_VARIANCE).sqrt())

    return layer


def example_normal(noise: Noise, name: str, shape: Sequence[int], first: int, count: int) -> Tensor:
    """Standard normal numbers (S, count, *shape), for each example decided by its number, whoever draws them."""
    size = math.prod(shape)
    blocks = -(-(first + count) * size // BLOCK)
    part = range(first * size, (first + count) * size)
    return noise.normal(name, blocks * BLOCK, part).view(len(noise), count, *shape)
