"""The pre-activation ResNet of the paper's CIFAR5 table: 462,693 weights on 24 x 24 colour images with 5 classes.

The number tells which weights there are: 461,232 of kernels, 1,136 biases of all convolutions and 325 of the dense
layer make 231 x 2,003 exactly. So normalisation has no weights of its own, and convolutions have biases, though a
normalisation follows half of them at once.
Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", figure 1b; Pawlowski et al. 2017.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.networks.layers import Conv2d, Dense, LayerSpec
from bbh_dist.networks.network import Layer, Network, check_images
from bbh_dist.networks.normalisation import Normalisation

_STEM, _FILTERS, _UNITS = 16, (16, 32, 64), 5


@dataclass(frozen=True)
class Unit:
    """Two 3 x 3 convolutions after normalisation and ReLU each, beside an identity; the first has the stride."""

    name: str
    inputs: int
    outputs: int
    stride: int

    @property
    def layers(self) -> dict[str, LayerSpec]:
        """The unit's layers by name."""
        return {
            f"{self.name}.conv1": Conv2d(self.inputs, self.outputs, 3, self.stride, padding=1),
            f"{self.name}.conv2": Conv2d(self.outputs, self.outputs, 3, padding=1),
        }

    def shortcut(self, x: Tensor) -> Tensor:
        """The identity: averaged over the stride, zeros in the channels that are new."""
        if self.stride > 1:
            x = F.avg_pool2d(x.flatten(0, 1), self.stride, ceil_mode=True).unflatten(0, x.shape[:2])
        return F.pad(x, (0, 0, 0, 0, 0, self.outputs - self.inputs)) if self.outputs > self.inputs else x


class PreactResNet(Network):
    """A stem of 16 channels, three scales of 5 units with 16, 32 and 64 filters, each halving the sides, and a mean.

    Raises:
        ValueError: inputs are not images (channels, height, width) of at least 8 x 8.
    """

    def __init__(self, input_shape: Sequence[int], classes: int, normalisation: Normalisation) -> None:
        check_images("preact-resnet", input_shape, smallest_side=8)
        self.normalisation = normalisation
        self.units = _units()
        self.layers = {"stem": Conv2d(input_shape[0], _STEM, 3, padding=1)}
        for unit in self.units:
            self.layers |= unit.layers
        self.dropped = tuple(f"{unit.name}.conv2" for unit in self.units)  # between the two convolutions, as the paper
        self.layers["dense"] = Dense(_FILTERS[-1], classes)

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Logits (S, B, C) of images (S or 1, B, channels, height, width)."""
        x = layer("stem", x)
        for unit in self.units:
            y = layer(f"{unit.name}.conv1", torch.relu(self.normalisation(x)))
            x = layer(f"{unit.name}.conv2", torch.relu(self.normalisation(y))) + unit.shortcut(x)
        return layer("dense", torch.relu(x).mean((3, 4)))


def _units() -> list[Unit]:
    units, inputs = [], _STEM
    for scale, filters in enumerate(_FILTERS, start=1):
        for index in range(1, _UNITS + 1):
            units.append(Unit(f"scale{scale}.unit{index}", inputs, filters, stride=2 if index == 1 else 1))
            inputs = filters
    return units
