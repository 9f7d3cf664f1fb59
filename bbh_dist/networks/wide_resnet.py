"""Wide residual networks: wrn-28-10 has 36,461,242 weights on 32 x 32 colour images with 10 classes.

Source: Zagoruyko & Komodakis 2016, table 1, without dropout; group in place of batch normalisation, unless another is
given.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bbh_dist.networks.network import Layer
from bbh_dist.networks.normalisation import Normalisation
from bbh_dist.networks.residual import Block, ResidualNetwork


class WideResNet(ResidualNetwork):
    """A stem of 16 channels and three stages of 16, 32 and 64 times `width` channels, with pre-activation blocks.

    `depth` counts convolutions as the paper does: the stem, two in each of three stages' (depth - 4) / 6 blocks, and
    the projections of the three stages.

    Raises:
        ValueError: no whole number of blocks gives the depth, the width is not positive, or inputs are not images
            (channels, height, width) of at least 8 x 8.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        depth: int,
        width: int,
        normalisation: Normalisation | None = None,
    ) -> None:
        name = f"wrn-{depth}-{width}"
        if depth < 10 or (depth - 4) % 6 != 0:
            raise ValueError(f"the depth of {name} must be 10, 16, 22, 28 or another 6 n + 4, got {depth}")
        if width < 1:
            raise ValueError(f"the width of {name} must be at least 1, got {width}")
        stages = [channels * width for channels in (16, 32, 64)]
        super().__init__(name, input_shape, classes, 16, stages, (depth - 4) // 6, normalisation)

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Logits (S, B, C) of images (S or 1, B, channels, height, width)."""
        x = layer("stem", x)
        for block in self.blocks:
            x = _preactivation_block(layer, self.normalisation, block, x)
        return layer("dense", torch.relu(self.normalisation(x)).mean((3, 4)))


def _preactivation_block(layer: Layer, normalise: Normalisation, block: Block, x: Tensor) -> Tensor:
    activated = torch.relu(normalise(x))
    y = torch.relu(normalise(layer(f"{block.name}.conv1", activated)))
    y = layer(f"{block.name}.conv2", y)
    # The projection shares the activation, as in the paper's code; an identity stays untouched.
    shortcut = layer(f"{block.name}.shortcut", activated) if block.is_projected else x
    return y + shortcut
