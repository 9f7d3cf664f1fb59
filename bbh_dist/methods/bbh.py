"""Bayes by Hypernet: weights are what a hypernetwork makes of noise (Pawlowski et al. 2017, arXiv 1711.01297).

w = G(z),  z ~ N(0, I)                               KL estimated from samples, or by a discriminator
w = G(z) + sigma * eps,  eps ~ N(0, I)               semi_implicit: KL bounded, sigma learnt per tensor or unit
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from bbh_dist.config import BbhMethod
from bbh_dist.divergences import (
    Discriminator,
    gaussian_moment_kl,
    knn_kl_of_distances,
    knn_marginal_kl,
    pick,
    semi_implicit_bound,
    semi_implicit_terms,
    squared_distances,
)
from bbh_dist.hypernets import Head, build_generator
from bbh_dist.methods.method import Method
from bbh_dist.methods.sigma import initial_log_stddevs, own_log_stddevs
from bbh_dist.methods.spread import spread_measures, variances
from bbh_dist.networks import Network, sampled_layers
from bbh_dist.noise import Noise
from bbh_dist.sharding import ALONE, PendingWeights, SampleShare, Shards

_NUMBERS_AT_ONCE = 1 << 24
"""Weights of samples that are only measured; more only where a training step has more."""


@dataclass(frozen=True)
class WeightSamples:
    """What one draw made: for each weight tensor, flat, (S, own part of D_t)."""

    noise: Noise
    means: list[Tensor]
    """G(z)."""
    deviations: list[Tensor] | None
    """eps, where the posterior is semi-implicit."""
    weights: dict[int, list[Tensor]] = field(default_factory=dict)
    """The first so many of the samples themselves."""
    whole: dict[SampleShare, PendingWeights] = field(default_factory=dict)
    """Weights for the network: (own samples, D_t)."""


class BayesByHypernet(Method):
    """An implicit or semi-implicit posterior given by a weight generator."""

    def __init__(self, config: BbhMethod, network: Network, generator: torch.Generator, shards: Shards = ALONE) -> None:
        super().__init__()
        self.config = config
        self.network = network
        self.shards = shards
        self.generator = build_generator(config.generator, network.tensors, generator, shards)
        parts = [self.generator.parts(shard) for shard in range(shards.count)]
        self.own = parts[shards.group.rank]
        self.lengths = [[len(part) for part in of_shard] for of_shard in parts]
        self.log_stddevs = None
        if config.divergence == "semi_implicit":
            self.log_stddevs = nn.Parameter(initial_log_stddevs(config.semi_implicit, network.tensors))
        self.discriminator = None
        if config.divergence == "discriminator":
            settings = config.discriminator
            self.discriminator = Discriminator(
                settings.hidden, config.prior_stddev, settings.lr, settings.gradient_clip, generator
            )
            self.pretraining_steps = settings.pretraining_steps

    def partial_parameters(self) -> list[nn.Parameter]:
        """Parameters that all shards hold and of whose gradients each has a term."""
        shared = [] if self.log_stddevs is None else [self.log_stddevs]
        return shared if self.generator.splits_heads else [*self.generator.parameters(), *shared]

    def split_rows(self) -> dict[str, int]:
        """Rows over all shards of the heads that are split."""
        return {
            f"generator.{name}.{tensor}": head.outputs
            for name, head in self.generator.named_modules()
            if isinstance(head, Head) and self.generator.splits_heads
            for tensor in ("weight", "bias")
        }

    def draw(self, noise: Noise) -> WeightSamples:
        """Weight samples, one per sample of the noise."""
        means = self.generator(noise)
        return WeightSamples(noise, means, None if self.log_stddevs is None else self._normal(noise, "eps"))

    def adapt(self, drawn: WeightSamples) -> None:
        """Let the discriminator, if there is one, take a step on a part of the weights and on as many of the prior."""
        if self.discriminator is None:
            return
        weights, count = self._picked([mean.detach() for mean in drawn.means], drawn.noise, "discriminator/fit")
        prior = self._kl_noise(drawn.noise).normal("discriminator/prior", count, self.shards.part(count))
        counts = (count * len(weights),) * 2
        group = self.shards.group
        self.discriminator.fit(
            weights, prior * self.config.prior_stddev, counts, lambda tensor: group.sum(tensor, "discriminator")
        )

    def prefetch(self, drawn: WeightSamples, samples: SampleShare) -> None:
        """Begin to bring whole weights together, of whose rows other workers have some."""
        if samples not in drawn.whole:
            weights = self._weights(drawn, samples.count)
            drawn.whole[samples] = self.shards.begin_weights(weights, self.lengths, samples)

    def forward(
        self, inputs: Tensor, drawn: WeightSamples, samples: SampleShare | None = None, first: int = 0
    ) -> Tensor:
        """Logits (S, B, C) of inputs (B, ...)."""
        samples = samples or SampleShare(len(drawn.noise))
        self.prefetch(drawn, samples)
        weights = {
            tensor.name: flat.unflatten(1, tensor.shape)
            for tensor, flat in zip(self.network.tensors, drawn.whole[samples].wait(), strict=True)
        }
        return self.network(sampled_layers(self.network.layers, weights), inputs[None])

    def divergence(self, drawn: WeightSamples) -> Tensor:
        """KL(q || N(0, prior_stddev^2 I)) in nats by the configured estimate, from the first `kl_samples`."""
        return self.begin_divergence(drawn)()

    def begin_divergence(self, drawn: WeightSamples) -> Callable[[], Tensor]:
        """Begin `divergence`; what is returned waits for the sum of its terms over shards."""
        count, prior_stddev = min(self.config.kl_samples, len(drawn.noise)), self.config.prior_stddev
        if drawn.deviations is not None:
            return self._semi_implicit(drawn, drawn.deviations, count)
        if self.discriminator is not None:
            picked, of_all = self._picked(drawn.means, drawn.noise, "discriminator")
            return self.shards.begin_sum(self.discriminator(picked).sum() * (self.network.size / (of_all * count)))
        weights = _first(drawn.means, count)
        if self.config.divergence == "gaussian":
            return self.shards.begin_sum(gaussian_moment_kl(weights, prior_stddev))
        prior = [part.mul_(prior_stddev) for part in self._normal(self._kl_noise(drawn.noise), "prior")]
        if self.config.divergence == "knn_marginal":
            return self.shards.begin_sum(knn_marginal_kl(weights, prior))
        squared = self.shards.begin_sum(squared_distances(weights, prior))
        return lambda: knn_kl_of_distances(squared(), self.network.size)

    @torch.no_grad()
    def measures(self, noise: Noise) -> dict[str, float]:
        """How wide the posterior is, and for a semi-implicit one what share of its variance is the generator's."""
        together = max(self.config.kl_samples, _NUMBERS_AT_ONCE // self.network.size)
        chunks = [noise.samples[i : i + together] for i in range(0, len(noise), together)]
        of_generator = variances(self.generator(replace(noise, samples=samples)) for samples in chunks)
        log_stddevs = None if self.log_stddevs is None else self._own_log_stddevs()
        return spread_measures(of_generator, log_stddevs, self.network.tensors, self.config.prior_stddev, self.shards)

    def _weights(self, drawn: WeightSamples, count: int) -> list[Tensor]:
        """The first `count` weight samples, for each tensor (count, own part of D_t); made once, for many shares."""
        if count not in drawn.weights:
            drawn.weights[count] = _first(drawn.means, count)
            if drawn.deviations is not None:
                parts = zip(drawn.weights[count], _first(drawn.deviations, count), self._own_log_stddevs(), strict=True)
                drawn.weights[count] = [torch.addcmul(mean, eps, log_stddev.exp()) for mean, eps, log_stddev in parts]
        return drawn.weights[count]

    def _own_log_stddevs(self) -> list[Tensor]:
        assert self.log_stddevs is not None
        return own_log_stddevs(self.config.semi_implicit, self.log_stddevs, self.network.tensors, self.own)

    def _normal(self, noise: Noise, purpose: str) -> list[Tensor]:
        """Standard normal numbers for this shard's weights, for each tensor (S, own part of D_t)."""
        return [
            noise.normal(f"{purpose}/{tensor.name}", tensor.size, own)
            for tensor, own in zip(self.network.tensors, self.own, strict=True)
        ]

    def _kl_noise(self, noise: Noise) -> Noise:
        """Of the samples in the KL estimate."""
        return noise.some(range(self.config.kl_samples))

    def _picked(self, means: list[Tensor], noise: Noise, purpose: str) -> tuple[Tensor, int]:
        """What the discriminator looks at: (S, own part) of some weights, and how many there are over all shards."""
        sizes = [tensor.size for tensor in self.network.tensors]
        places = noise.places(purpose, self.config.discriminator.weights, sum(sizes))
        return pick(_first(means, min(self.config.kl_samples, len(noise))), self.own, sizes, places), len(places)

    def _semi_implicit(self, drawn: WeightSamples, deviations: list[Tensor], count: int) -> Callable[[], Tensor]:
        inner = self.config.semi_implicit.inner_samples
        inner = count - 1 if inner is None else inner
        means = _first(drawn.means, count)
        if inner >= count:
            others = drawn.noise.after(max(drawn.noise.samples) + 1, inner - count + 1)
            means = [torch.cat(pair) for pair in zip(means, self.generator(others), strict=True)]
        eps, prior_stddev = _first(deviations, count), self.config.prior_stddev
        terms = self.shards.begin_sum(semi_implicit_terms(means, eps, self._own_log_stddevs(), prior_stddev, inner))
        return lambda: semi_implicit_bound(terms(), inner)


def _first(parts: list[Tensor], count: int) -> list[Tensor]:
    """The first samples of each part; not a slice of all of them, whose gradient would be copied."""
    return parts if count == len(parts[0]) else [part[:count] for part in parts]
