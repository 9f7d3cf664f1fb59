"""Bayes by Backprop: a Gaussian for every weight, independent of the others (Blundell et al. 2015, arXiv 1505.05424).

w = mean + sigma * eps,  eps ~ N(0, I)

The likelihood's gradient in training is estimated with one eps for all examples of a batch (`reparameterised`), noise
on the activations of each example (`local`), or one eps with signs of each example's own (`flipout`). Predictions have
weight samples that all examples share, in any case.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bbh_dist.config import BbbMethod
from bbh_dist.divergences import factorised_gaussian_kl, gaussian_samples
from bbh_dist.methods.map import initial_weights
from bbh_dist.methods.method import Method
from bbh_dist.networks import Layer, Network, TensorSpec, flipout_layers, local_layers, sampled_layers
from bbh_dist.noise import ExampleNoise, Noise
from bbh_dist.sharding import ALONE, SampleShare, Shards

Weights = dict[str, Tensor]
"""By the tensors' names, each (S or 1, *shape)."""


@dataclass(frozen=True)
class GaussianSamples:
    """What one draw made."""

    noise: Noise
    estimator: str
    kl: Tensor
    """From posterior to prior, nats."""
    rows: Tensor | None
    """(S, D): weights; for `flipout` what they are off their means; none for `local`."""
    whole: dict[SampleShare, Weights] = field(default_factory=dict)
    """Rows that the network has been given."""


class BayesByBackprop(Method):
    """A factorised Gaussian posterior. All weights stand in one vector, so that noise and updates take one pass.

    Start: means as the weights of a fresh network (see `initial_weights`), sigma as configured.
    """

    def __init__(self, config: BbbMethod, network: Network, generator: torch.Generator, shards: Shards = ALONE) -> None:
        super().__init__()
        self.config, self.network, self.shards = config, network, shards
        weights = initial_weights(network.tensors, generator)
        self.means = nn.Parameter(torch.cat([weight.flatten() for weight in weights]))
        log_stddevs = [torch.full((tensor.size,), initial_log_stddev(config, tensor)) for tensor in network.tensors]
        self.log_stddevs = nn.Parameter(torch.cat(log_stddevs))

    def draw(self, noise: Noise) -> GaussianSamples:
        """Weight samples, or what the estimator has in their place, one per sample of the noise."""
        estimator = self.config.estimator if noise.purpose == "train" else "reparameterised"
        parameters, prior_stddev = (self.means, self.log_stddevs), self.config.prior_stddev
        if estimator == "reparameterised":
            eps = noise.normal("eps", self.network.size)
            rows, kl = gaussian_samples(*parameters, eps, prior_stddev)
            return GaussianSamples(noise, estimator, kl, rows)
        kl = factorised_gaussian_kl(*parameters, prior_stddev)
        if estimator == "local":
            return GaussianSamples(noise, estimator, kl, None)
        deviations = self.log_stddevs.exp() * noise.normal("eps", self.network.size)
        return GaussianSamples(noise, estimator, kl, deviations)

    def forward(
        self, inputs: Tensor, drawn: GaussianSamples, samples: SampleShare | None = None, first: int = 0
    ) -> Tensor:
        """Logits (S, B, C) of inputs (B, ...)."""
        samples = samples or SampleShare(len(drawn.noise))
        if drawn.estimator == "reparameterised":
            layer = sampled_layers(self.network.layers, self._rows(drawn, samples))
        else:
            layer = self._noisy_layers(drawn, samples, ExampleNoise(drawn.noise.some(samples.own), first))
        return self.network(layer, inputs[None])

    def divergence(self, drawn: GaussianSamples) -> Tensor:
        """KL(q || N(0, prior_stddev^2 I)) in nats, in closed form."""
        return drawn.kl

    def _noisy_layers(self, drawn: GaussianSamples, samples: SampleShare, noise: ExampleNoise) -> Layer:
        """Layers whose noise differs between examples."""
        means = self._shared(self.means)
        if drawn.estimator == "flipout":
            return flipout_layers(self.network.layers, means, self._rows(drawn, samples), noise.signs)
        return local_layers(self.network.layers, means, self._shared((2 * self.log_stddevs).exp()), noise.normal)

    def _rows(self, drawn: GaussianSamples, samples: SampleShare) -> Weights:
        """This worker's samples of what was drawn."""
        if samples not in drawn.whole:
            assert drawn.rows is not None
            drawn.whole[samples] = self._by_name(self.shards.weights([drawn.rows], [[self.network.size]], samples)[0])
        return drawn.whole[samples]

    def _shared(self, flat_D: Tensor) -> Weights:
        """What all samples share; its gradient is summed over workers as that of samples is."""
        return self._by_name(self.shards.weights([flat_D[None]], [[self.network.size]])[0])

    def _by_name(self, flat_SD: Tensor) -> Weights:
        tensors = self.network.tensors
        parts = flat_SD.split([tensor.size for tensor in tensors], 1)
        return {tensor.name: part.unflatten(1, tensor.shape) for tensor, part in zip(tensors, parts, strict=True)}


def initial_log_stddev(config: BbbMethod, tensor: TensorSpec) -> float:
    """The logarithm of sigma with which the weights of a tensor start."""
    if config.initial_stddev is None:
        return config.initial_log_variance / 2
    return math.log(config.initial_stddev * tensor.scale)
