"""Deep ensembles: several maximum a posteriori networks, trained at once (Lakshminarayanan et al. 2017, 1612.01474).

Members differ by their start and by the order in which they see the data; nothing ties them together. As in the paper's
comparison there is no head for the predictive variance and no adversarial training.

A training step of 10 LeNets, batch 100, 2 cores of an AMD EPYC, times MAP's by the wall clock (medians of three runs in
turns): members in turn 8.69, 8.73, 9.13, a member on each of two threads 7.76, 7.30, 8.38. In one pass it takes more
processor time than either.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbh_dist.config import EnsembleMethod
from bbh_dist.methods.beside import beside_each_other
from bbh_dist.methods.map import initial_weights, kernel_penalty
from bbh_dist.methods.method import Method
from bbh_dist.networks import Network, sampled_layers
from bbh_dist.networks.layers import Conv2d
from bbh_dist.noise import Noise
from bbh_dist.sharding import ALONE, SampleShare, Shards


class Ensemble(Method):
    """Members of equal weight; the divergence is the mean of their penalties. The weight samples are the members.

    Shards hold whole members each, and send no weights and no gradients to each other. The first member starts as a MAP
    of the same seed does.
    """

    independent = True

    def __init__(
        self, config: EnsembleMethod, network: Network, generator: torch.Generator, shards: Shards = ALONE
    ) -> None:
        super().__init__()
        self.members = self.fixed_samples = config.members
        self.prior_stddev = config.prior_stddev
        self.network = network
        self.convolves = any(isinstance(layer, Conv2d) for layer in network.layers.values())
        self.holders = shards
        self.shards = Shards(replicas=shards.replicas)  # nobody else holds parts of a sample
        self.held = shards.part(config.members)
        members = [initial_weights(network.tensors, generator) for _ in range(self.held.stop)][self.held.start :]
        self.weights = nn.ParameterList(nn.Parameter(torch.stack(of)) for of in zip(*members, strict=True))

    def split_rows(self) -> dict[str, int]:
        """Members over all shards of every parameter."""
        return {name: self.members for name, _ in self.named_parameters()}

    def draw(self, noise: Noise) -> range:
        """The members whose numbers are the samples', which are consecutive."""
        return range(noise.samples[0], min(noise.samples[-1] + 1, self.members))

    def forward(self, inputs: Tensor, drawn: range, samples: SampleShare | None = None, first: int = 0) -> Tensor:
        """Logits (S, B, C) of inputs (B, ...)."""
        return self.network(sampled_layers(self.network.layers, self._weights(drawn, samples)), inputs[None])

    def each(self, inputs: Tensor, drawn: range, samples: SampleShare, first: int = 0) -> Tensor:
        """Logits (S, B, C) of inputs (S, B, ...): in one pass, a member on each thread, or in turn, as is faster.

        On CPU activations of images under all members leave the cache, and are fetched from the system anew each step.
        Figures are in the docstring of the module. Members take turns where a fifth of the threads' time or more would
        be left over, and among replicas, which may exchange statistics of their parts of a batch within the network.
        """
        weights = self._weights(drawn, samples)
        alone = self.convolves and inputs.device.type == "cpu"

        def piece(x: Tensor, own: Sequence[Tensor]) -> Tensor:
            return self.network(sampled_layers(self.network.layers, dict(zip(weights, own, strict=True))), x)

        threads, members = torch.get_num_threads(), len(inputs)
        in_whole_rounds = 5 * members > 4 * threads * -(-members // threads)
        if alone and threads > 1 and in_whole_rounds and self.shards.replicas.size == 1:
            return beside_each_other(piece, inputs, list(weights.values()))
        together = 1 if alone else max(1, len(inputs))
        parts = zip(inputs.split(together), *(weight.split(together) for weight in weights.values()), strict=True)
        return torch.cat([piece(x, own) for x, *own in parts])

    def divergence(self, drawn: range) -> Tensor:
        """Mean over members of the sum of squared kernel weights / (2 prior_stddev^2), nats."""
        penalty = kernel_penalty(self.network.tensors, self.weights, self.prior_stddev)
        return self.holders.sum(penalty / self.members)

    def _weights(self, drawn: range, samples: SampleShare | None) -> dict[str, Tensor]:
        """Tensors (S, *shape) by name, of the members of a share; gradients come back summed over replicas."""
        own = drawn if samples is None else drawn[samples.own.start : samples.own.stop]
        tensors = self.network.tensors
        flat = self.shards.weights([weight.flatten(1) for weight in self.weights], [[t.size for t in tensors]])
        return {
            tensor.name: self._rows(part, own).unflatten(1, tensor.shape)
            for tensor, part in zip(tensors, flat, strict=True)
        }

    def _rows(self, part: Tensor, members: range) -> Tensor:
        """Rows of some members; where they are all that are held, not a slice, whose gradient would be copied."""
        if members == self.held:
            return part
        return part[members.start - self.held.start : members.stop - self.held.start]
