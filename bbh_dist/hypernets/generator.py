"""What every weight generator does: noise in, samples of all weights of a network out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from bbh_dist.networks.layers import TensorSpec
from bbh_dist.noise import Noise
from bbh_dist.sharding import Shards


class WeightGenerator(nn.Module, ABC):
    """G(z): a sample of all weights and biases of a network from noise.

    A generated number is a draw of unit variance at the start; it is multiplied by its tensor's scale (He's for
    kernels, 1/sqrt(fan_in) for biases), so the sampled network starts as a freshly initialised one would.
    Where shards hold parts of it, each generates its own part of every tensor.
    """

    splits_heads: bool
    """Whether shards hold parts of the heads, or all of them and generate parts of the slices."""

    def __init__(self, tensors: Sequence[TensorSpec], noise_dim: int, shared_noise: bool, shards: Shards) -> None:
        super().__init__()
        self.tensors = list(tensors)
        self.noise_dim = noise_dim
        self.shared_noise = shared_noise
        self.shards = shards

    @abstractmethod
    def forward(self, noise: Noise) -> list[Tensor]:
        """Weight samples, flat: for each tensor (S, own part of D_t)."""

    @abstractmethod
    def parts(self, shard: int) -> list[range]:
        """For each tensor the weights that a shard generates, indices into the flat tensor."""

    def z(self, noise: Noise, tensor: TensorSpec) -> Tensor:
        """(S, K): one z for all tensors (aligned), or the tensor's own."""
        return noise.normal("z" if self.shared_noise else f"z/{tensor.name}", self.noise_dim)
