"""ResNet-18 for small images: 11,164,362 weights on 32 x 32 colour images with 10 classes.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", table 1, with the 3 x 3 stem and without the
pooling after it, as is usual on CIFAR; group in place of batch normalisation, unless another is given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bbh_dist.networks.network import Layer
from bbh_dist.networks.normalisation import Normalisation
from bbh_dist.networks.residual import Block, ResidualNetwork


class ResNet18(ResidualNetwork):
    """A stem of 64 channels and two basic blocks in each of the stages of 64, 128, 256 and 512 channels.

    Raises:
        ValueError: inputs are not images (channels, height, width) of at least 8 x 8.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, normalisation: Normalisation | None = None) -> None:
        stages = (64, 128, 256, 512)
        super().__init__("resnet18", input_shape, classes, 64, stages, 2, normalisation)

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Logits (S, B, C) of images (S or 1, B, channels, height, width)."""
        x = torch.relu(self.normalisation(layer("stem", x)))
        for block in self.blocks:
            x = _basic_block(layer, self.normalisation, block, x)
        return layer("dense", x.mean((3, 4)))


def _basic_block(layer: Layer, normalise: Normalisation, block: Block, x: Tensor) -> Tensor:
    y = torch.relu(normalise(layer(f"{block.name}.conv1", x)))
    y = normalise(layer(f"{block.name}.conv2", y))
    shortcut = normalise(layer(f"{block.name}.shortcut", x)) if block.is_projected else x
    return torch.relu(y + shortcut)
