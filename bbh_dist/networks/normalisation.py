"""Normalisation of activations (S, B, C, H, W), each image of each weight sample by itself.

Group normalisation, because batch statistics would make a prediction depend on its neighbours in the batch, on the
chunks in which an evaluation runs, and on how a batch is shared among workers: the objective has to be the same for
any number of workers.
"""

import torch.nn.functional as F
from torch import Tensor

_MOST_GROUPS = 32


def group_norm(x: Tensor) -> Tensor:
    """Activations (S, B, C, H, W) with mean 0 and variance 1 in every group of channels of every image.

    Without learned scale and shift: all weights of a network belong to layers that ask for them by name.
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
