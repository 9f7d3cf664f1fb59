"""Normalisation of activations (S, B, C, H, W), and how it treats a batch in training and evaluation.

By groups each image of each weight sample is normalised by itself. Batch statistics (see `batch_statistics`) make a
prediction depend on its neighbours in the batch: in training they are those of the whole global batch, summed over its
workers, and in evaluation those of fixed blocks, so that the objective is the same for any number of workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch.nn.functional as F
from torch import Tensor

_MOST_GROUPS = 32


class Normalisation(ABC):
    """What a network does between its layers: activations (S, B, C, H, W) to ones of mean 0 and variance 1.

    Without learned scale and shift: all weights of a network belong to layers that it asks for by name.
    """

    together: int | None = None
    """Most inputs of an evaluation whose statistics are taken together; None where no example depends on others."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Normalised activations (S, B, C, H, W)."""

    def training(self, total: Callable[[Tensor], Tensor] | None) -> AbstractContextManager[None]:
        """A step on a part of a batch; `total` sums a tensor over all its parts, None where there is one."""
        return nullcontext()

    def evaluating(self, forward: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        """Predictions under some weight samples, with which `forward` gives the network's outputs for inputs."""
        return nullcontext()


class GroupNormalisation(Normalisation):
    """Group normalisation: each image of each weight sample by itself."""

    def __call__(self, x: Tensor) -> Tensor:
        """Activations (S, B, C, H, W) normalised in every group of channels of every image."""
        return group_norm(x)


def group_norm(x: Tensor) -> Tensor:
    """Activations (S, B, C, H, W) with mean 0 and variance 1 in every group of channels of every image.

    Source: Wu & He 2018, section 3.1, with epsilon 1e-5.
    """
    if x.device.type == "cuda":
        return _grouped_group_norm(x)
    return F.group_norm(x.flatten(0, 1), group_count(x.shape[2])).unflatten(0, x.shape[:2])


def group_count(channels: int) -> int:
    """The largest divisor of the channels that is at most 32 and leaves a group at least two of them.

    32 is the default of Wu & He 2018. A group of one channel would be instance normalisation, which takes away how
    strongly a feature is present in an image, and is worse in their comparison (table 1).
    """
    most = min(_MOST_GROUPS, max(1, channels // 2))
    return max(groups for groups in range(1, most + 1) if channels % groups == 0)


def _grouped_group_norm(x: Tensor) -> Tensor:
    # A grouped convolution leaves and takes (B, S * C, H, W): in this order none of the three copies its activations.
    samples, _, channels = x.shape[:3]
    images = x.transpose(0, 1).flatten(1, 2)
    return F.group_norm(images, samples * group_count(channels)).unflatten(1, (samples, channels)).transpose(0, 1)
