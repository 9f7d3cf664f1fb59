"""Multiplicative normalizing flows (Louizos & Welling 2017, arXiv 1703.01961).

z_0 ~ N(m, s^2),  z = NF_q(z_0)                      a multiplier of every input (dense) or filter (convolution)
w = z mu + sigma eps,  eps ~ N(0, I)                 kernels; biases without z

q(w) = E_z q(w | z) has no closed form. An auxiliary posterior r(z | w) bounds the divergence (equation 11):

    KL(q(w) || p) <= E [ KL(q(w | z) || p) + log q(z) - log r(z | w) ]
    log q(z) = log N(z_0; m, s^2) - log |det NF_q|

A weight sample is coherent: it has one z, whatever the examples. In the paper every example of a batch has its own.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bbh_dist.config import MnfMethod
from bbh_dist.flows import Flows
from bbh_dist.methods.auxiliary import LOG_ROOT_2PI, AuxiliaryPosterior
from bbh_dist.methods.method import Method
from bbh_dist.methods.multipliers import Multiplied
from bbh_dist.networks import Layer, Network, local_layers, sampled_layers
from bbh_dist.noise import ExampleNoise, Noise
from bbh_dist.sharding import ALONE, SampleShare, Shards


@dataclass(frozen=True)
class Moments:
    """Of the weights given some multipliers, for each tensor: means (S, *shape), standard deviations (*shape)."""

    noise: Noise
    means: list[Tensor]
    stddevs: list[Tensor]


@dataclass(frozen=True)
class Multipliers:
    """What one draw made."""

    noise: Noise
    z: Tensor
    """(S, Z)."""
    log_density: Tensor
    """log q(z) (S,), nats."""
    log_stddevs: Tensor
    """Of the weights (D,), clipped."""
    stddevs: Tensor
    weights: dict[SampleShare, dict[str, Tensor]] = field(default_factory=dict)
    """Weight samples that the network has been given, by the names of their tensors."""


class MultiplicativeNormalizingFlows(Method):
    """Gaussian weights whose means are multiplied by what normalizing flows make of noise.

    Start: means from N(0, 2 / fan_in) (He), biases 0, multipliers about 1.

    Legend: S weight samples, D weights, U units of a kernel, R weights of a unit, Z units of all kernels.
    """

    def __init__(self, config: MnfMethod, network: Network, generator: torch.Generator, shards: Shards = ALONE) -> None:
        super().__init__()
        self.config, self.network, self.shards = config, network, shards
        self.kernels = [Multiplied(tensor) for tensor in network.tensors if tensor.is_kernel]
        self.units = [kernel.units for kernel in self.kernels]
        starts = [torch.randn(t.size, generator=generator) * (t.scale if t.is_kernel else 0.0) for t in network.tensors]
        self.means = nn.Parameter(torch.cat(starts))
        self.log_stddevs = nn.Parameter(torch.full((network.size,), config.initial_log_variance / 2))
        count = sum(self.units)
        self.start_means = nn.Parameter(torch.ones(count))
        self.start_log_stddevs = nn.Parameter(torch.full((count,), math.log(config.initial_multiplier_stddev)))
        self.flows = Flows(self.units, config.posterior_flows, config.posterior_hidden, generator)
        self.auxiliary = AuxiliaryPosterior(self.kernels, config.auxiliary_flows, config.auxiliary_hidden, generator)

    def draw(self, noise: Noise) -> Multipliers:
        """Multipliers, one vector per sample of the noise."""
        eps = noise.normal("z", len(self.start_means))
        z, log_determinant = self.flows(torch.addcmul(self.start_means, eps, self.start_log_stddevs.exp()))
        log_start = -(0.5 * eps.square() + self.start_log_stddevs + LOG_ROOT_2PI).sum(1)
        most = math.log(self.config.largest_stddev)
        if noise.purpose == "train":
            with torch.no_grad():  # beyond the clip there is no gradient that could lead back
                self.log_stddevs.clamp_(max=most)
        log_stddevs = self.log_stddevs.clamp_max(most)
        return Multipliers(noise, z, log_start - log_determinant, log_stddevs, log_stddevs.exp())

    def forward(self, inputs: Tensor, drawn: Multipliers, samples: SampleShare | None = None, first: int = 0) -> Tensor:
        """Logits (S, B, C) of inputs (B, ...).

        In training `local` draws activations for each example; elsewhere all examples see the same weights.
        """
        samples = samples or SampleShare(len(drawn.noise))
        if self.config.estimator == "local" and drawn.noise.purpose == "train":
            return self.network(self._local_layers(self._moments(drawn, samples), first), inputs[None])
        if samples not in drawn.weights:
            drawn.weights[samples] = self._weights(self._moments(drawn, samples))
        return self.network(sampled_layers(self.network.layers, drawn.weights[samples]), inputs[None])

    def divergence(self, drawn: Multipliers) -> Tensor:
        """The bound on KL(q || N(0, prior_stddev^2 I)) in nats, mean over the samples."""
        variances = drawn.stddevs.square()
        means, spreads = (self._matrices(flat) for flat in (self.means, variances))
        log_auxiliary = self.auxiliary.log_density(drawn.z, means, spreads, drawn.noise)
        return (self._gaussian_kl(drawn, variances) + drawn.log_density - log_auxiliary).mean()

    def _gaussian_kl(self, drawn: Multipliers, variances: Tensor) -> Tensor:
        """KL(q(w | z) || p) (S,), nats; of the means it needs every unit's sum of squares alone."""
        precision = self.config.prior_stddev**-2
        squares = self.means.square()
        of_units = torch.cat([matrix.sum(1) for matrix in self._matrices(squares)])
        of_biases = [
            part.sum()
            for tensor, part in zip(self.network.tensors, self._split(squares), strict=True)
            if not tensor.is_kernel
        ]
        square_S = drawn.z.square() @ of_units + sum(of_biases)
        spread = 0.5 * precision * variances.sum() - drawn.log_stddevs.sum()
        return 0.5 * precision * square_S + spread + self.network.size * (math.log(self.config.prior_stddev) - 0.5)

    def _moments(self, drawn: Multipliers, samples: SampleShare) -> Moments:
        """Of a worker's share of the samples; gradients come back summed over all workers."""
        size, own = self.network.size, samples.own
        flat = self.shards.weights([self.means[None], drawn.stddevs[None]], [[size, size]])
        means, stddevs = (
            [part.view(t.shape) for t, part in zip(self.network.tensors, self._split(whole[0]), strict=True)]
            for whole in flat
        )
        (z,) = self.shards.weights([drawn.z], [[sum(self.units)]], samples)
        of_kernels = zip(self.kernels, z.split(self.units, 1), strict=True)
        factor = {kernel.tensor.name: kernel.spread(part) for kernel, part in of_kernels}
        multiplied = [
            mean * factor[t.name] if t.is_kernel else mean.expand(len(z), -1)
            for t, mean in zip(self.network.tensors, means, strict=True)
        ]
        return Moments(drawn.noise.some(own), multiplied, stddevs)

    def _local_layers(self, moments: Moments, first: int) -> Layer:
        pairs = zip(moments.means, moments.stddevs, strict=True)
        variances = self._named([stddev.square().expand_as(mean) for mean, stddev in pairs])
        return local_layers(
            self.network.layers, self._named(moments.means), variances, ExampleNoise(moments.noise, first).normal
        )

    def _weights(self, moments: Moments) -> dict[str, Tensor]:
        """Weight samples (S, *shape)."""
        eps = self._split(moments.noise.normal("eps", self.network.size))
        parts = zip(moments.means, eps, moments.stddevs, strict=True)
        return self._named([torch.addcmul(mean, part.view_as(mean), stddev) for mean, part, stddev in parts])

    def _split(self, flat: Tensor) -> tuple[Tensor, ...]:
        """By tensor, (..., D_t) each."""
        return flat.split([tensor.size for tensor in self.network.tensors], -1)

    def _matrices(self, flat: Tensor) -> list[Tensor]:
        """(U, R) of each kernel."""
        parts = dict(zip(self.network.tensors, self._split(flat), strict=True))
        return [kernel.matrix(parts[kernel.tensor]) for kernel in self.kernels]

    def _named(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        return {t.name: tensor for t, tensor in zip(self.network.tensors, tensors, strict=True)}
