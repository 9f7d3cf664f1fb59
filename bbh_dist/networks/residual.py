"""What residual networks for small images have in common: a 3 x 3 stem, stages of blocks, a mean over positions.

No convolution has a bias: a normalisation follows each of them, at once or after an addition.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bbh_dist.networks.layers import Conv2d, Dense, LayerSpec
from bbh_dist.networks.network import Network, check_images
from bbh_dist.networks.normalisation import GroupNormalisation, Normalisation


@dataclass(frozen=True)
class Block:
    """Two 3 x 3 convolutions and a shortcut around them; the first convolution has the stride."""

    name: str
    inputs: int
    outputs: int
    stride: int

    @property
    def is_projected(self) -> bool:
        """Whether the shortcut is a 1 x 1 convolution, because the shapes before and after the block differ."""
        return self.stride != 1 or self.inputs != self.outputs

    @property
    def layers(self) -> dict[str, LayerSpec]:
        """The block's layers by name."""
        layers: dict[str, LayerSpec] = {
            f"{self.name}.conv1": Conv2d(self.inputs, self.outputs, 3, self.stride, padding=1, bias=False),
            f"{self.name}.conv2": Conv2d(self.outputs, self.outputs, 3, padding=1, bias=False),
        }
        if self.is_projected:
            layers[f"{self.name}.shortcut"] = Conv2d(self.inputs, self.outputs, 1, self.stride, bias=False)
        return layers


class ResidualNetwork(Network):
    """Stem, `blocks_per_stage` blocks in each stage, and a dense layer; every stage but the first halves the sides.

    Raises:
        ValueError: inputs are not images (channels, height, width) of at least 8 x 8.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int],
        classes: int,
        stem_channels: int,
        stage_channels: Sequence[int],
        blocks_per_stage: int,
        normalisation: Normalisation | None = None,
    ) -> None:
        check_images(name, input_shape, smallest_side=8)
        self.normalisation = normalisation or GroupNormalisation()
        self.blocks = _blocks(stem_channels, stage_channels, blocks_per_stage)
        self.layers = {"stem": Conv2d(input_shape[0], stem_channels, 3, padding=1, bias=False)}
        for block in self.blocks:
            self.layers |= block.layers
        self.layers["dense"] = Dense(stage_channels[-1], classes)
        self.dropped = tuple(f"{block.name}.conv2" for block in self.blocks)  # as in Zagoruyko & Komodakis 2016, 2.4


def _blocks(inputs: int, stage_channels: Sequence[int], blocks_per_stage: int) -> list[Block]:
    blocks = []
    for stage, outputs in enumerate(stage_channels, start=1):
        for index in range(1, blocks_per_stage + 1):
            stride = 2 if stage > 1 and index == 1 else 1
            blocks.append(Block(f"stage{stage}.block{index}", inputs, outputs, stride))
            inputs = outputs
    return blocks
