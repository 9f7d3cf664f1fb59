"""Layers with Gaussian weights that give every example noise of its own, so that gradients vary less.

The likelihood's gradient under one weight sample for a whole batch varies as if the batch had one example, as all
examples share the sample's noise. Both ways here keep the distribution of every example's activations and change how
those of different examples depend on each other.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bbh_dist.networks.layers import Dense, LayerSpec
from bbh_dist.networks.network import Layer
from bbh_dist.networks.sampled import sampled_layers

PerExample = Callable[[str, int, int], Tensor]
"""Random numbers (S, examples, size) of a name, for (name, examples, size)."""


def local_layers(
    layers: Mapping[str, LayerSpec], means: Mapping[str, Tensor], variances: Mapping[str, Tensor], normal: PerExample
) -> Layer:
    """Layers whose results are drawn: N(mean of the result, its variance), for each of them by itself.

    Means and variances of weights are (S or 1, *shape). A dense layer has the exact distribution; the results of a
    convolution at different places are drawn independently, though they share weights.
    Source: Kingma, Salimans & Welling 2015, "Variational Dropout and the Local Reparameterization Trick", equation 6;
    for convolutions Molchanov et al. 2017.
    """
    mean_of, variance_of = sampled_layers(layers, means), sampled_layers(layers, variances)

    def layer(name: str, x: Tensor) -> Tensor:
        mean, variance = mean_of(name, x), variance_of(name, x.square())
        eps = normal(name, mean.shape[1], math.prod(mean.shape[2:])).unflatten(2, mean.shape[2:])
        # Where all inputs are 0 and there is no bias, nothing varies; the root's slope there is infinite.
        return mean + variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt() * eps

    return layer


def flipout_layers(
    layers: Mapping[str, LayerSpec], means: Mapping[str, Tensor], deviations: Mapping[str, Tensor], signs: PerExample
) -> Layer:
    """Layers whose weights are means (1, *shape) plus deviations (S, *shape), times signs of each example's own.

    A weight's sign is that of its output unit or filter times that of its input unit or channel, a bias's the first
    one: every example sees a weight sample of the same distribution, where deviations are symmetric about 0.
    Source: Wen et al. 2018, "Flipout", equation 4.
    """
    mean_of, deviation_of = sampled_layers(layers, means), sampled_layers(layers, deviations)

    def layer(name: str, x: Tensor) -> Tensor:
        spec, examples = layers[name], x.shape[1]
        flips = signs(name, examples, spec.inputs + spec.outputs)
        of_inputs, of_outputs = flips.split([spec.inputs, spec.outputs], 2)
        if not isinstance(spec, Dense):
            of_inputs, of_outputs = of_inputs[..., None, None], of_outputs[..., None, None]
        return mean_of(name, x) + deviation_of(name, x * of_inputs) * of_outputs

    return layer
