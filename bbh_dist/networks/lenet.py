"""LeNet as the paper has it: 431,080 weights on 28 x 28 grey images with 10 classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bbh_dist.networks.layers import Conv2d, Dense
from bbh_dist.networks.network import Layer, Network, check_images
from bbh_dist.networks.sampled import max_pool


class LeNet(Network):
    """Two 5 x 5 convolutions with 20 and 50 filters, each pooled by 2, then dense layers of 500 and C units.

    Raises:
        ValueError: inputs are not images (channels, height, width) of at least 16 x 16.
    """

    def __init__(self, input_shape: Sequence[int], classes: int) -> None:
        check_images("lenet", input_shape, smallest_side=16)
        channels, height, width = input_shape
        features = 50 * _side_after(height) * _side_after(width)
        self.layers = {
            "conv1": Conv2d(channels, 20, 5),
            "conv2": Conv2d(20, 50, 5),
            "dense1": Dense(features, 500),
            "dense2": Dense(500, classes),
        }
        self.dropped = ("conv2", "dense1", "dense2")

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Logits (S, B, C) of images (S or 1, B, channels, height, width)."""
        for name in ("conv1", "conv2"):
            # The maximum commutes with ReLU; pooling first leaves a quarter of the activations to rectify.
            x = torch.relu(max_pool(layer(name, x), 2))
        x = torch.relu(layer("dense1", x.flatten(2)))
        return layer("dense2", x)


def _side_after(side: int) -> int:
    return ((side - 4) // 2 - 4) // 2
