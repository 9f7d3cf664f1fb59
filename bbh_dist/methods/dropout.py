"""MC-dropout: a point estimate whose activations are dropped at random, in predictions too.

Every weight sample has masks of its own, and in it every example, as dropout in training has. To drop an input of a
layer is to set a column of its weights to 0: a variational posterior over weights (Gal & Ghahramani 2016).
"""

import math

import torch
from torch import Tensor

from bbh_dist.config import DropoutMethod
from bbh_dist.methods.map import MAP
from bbh_dist.networks import Layer, Network
from bbh_dist.noise import INTEGERS, ExampleNoise, Noise
from bbh_dist.sharding import ALONE, SampleShare, Shards


class Dropout(MAP):
    """MAP, with inputs of the layers that the network names dropped with probability `rate`, others scaled up.

    The penalty and the start are those of MAP, and a rate of 0 is MAP. A rate is rounded to the next 1/65,536, and
    what remains is scaled by the rounded one, so that its mean is exact.
    Source: Gal & Ghahramani 2016, "Dropout as a Bayesian Approximation", section 3; scaled as is usual at training
    time, so that weights are those of a network without dropout.
    """

    def __init__(
        self, config: DropoutMethod, network: Network, generator: torch.Generator, shards: Shards = ALONE
    ) -> None:
        super().__init__(config, network, generator, shards)
        self.kept = INTEGERS - round(config.rate * INTEGERS)
        """How many of the random integers leave an input as it is."""
        self.fixed_samples = 1 if self.kept == INTEGERS or not network.dropped else None
        self.noise_by_place = self.fixed_samples is None

    def draw(self, noise: Noise) -> Noise:
        """The noise itself: masks have to wait for the examples."""
        return noise

    def forward(self, inputs: Tensor, drawn: Noise, samples: SampleShare | None = None, first: int = 0) -> Tensor:
        """Logits (S, B, C) of inputs (B, ...); (1, B, C) of a point estimate."""
        layer = self.layers()
        if self.fixed_samples is None:
            own = (samples or SampleShare(len(drawn))).own
            layer = self._dropping(layer, ExampleNoise(drawn.some(own), first))
        return self.network(layer, inputs[None])

    def _dropping(self, layer: Layer, noise: ExampleNoise) -> Layer:
        """The layers, with masked inputs."""

        def masked(name: str, x: Tensor) -> Tensor:
            return layer(name, x * self._mask(name, x, noise) if name in self.network.dropped else x)

        return masked

    def _mask(self, name: str, x: Tensor, noise: ExampleNoise) -> Tensor:
        """What to multiply a layer's input (S or 1, B, ...) with: (S, B, ...), 0 where it is dropped.

        Images have their channels last in memory, as convolutions leave them, whatever the layout of the input.
        """
        mask = noise.coins(f"dropout/{name}", x.shape[1], math.prod(x.shape[2:]), self.kept).mul_(INTEGERS / self.kept)
        if x.dim() == 3:
            return mask
        channels, height, width = x.shape[2:]
        return mask.unflatten(2, (height, width, channels)).permute(0, 1, 4, 2, 3)
