"""Main networks, written once over abstract layers."""

import re
from collections.abc import Sequence

from bbh_dist.networks.estimators import flipout_layers, local_layers
from bbh_dist.networks.layers import Conv2d, Dense, LayerSpec, TensorSpec
from bbh_dist.networks.lenet import LeNet
from bbh_dist.networks.mlp import MLP
from bbh_dist.networks.network import Layer, Network
from bbh_dist.networks.resnet import ResNet18
from bbh_dist.networks.sampled import sampled_layers
from bbh_dist.networks.wide_resnet import WideResNet

__all__ = [
    "Conv2d",
    "Dense",
    "Layer",
    "LayerSpec",
    "LeNet",
    "Network",
    "ResNet18",
    "TensorSpec",
    "WideResNet",
    "build_network",
    "flipout_layers",
    "local_layers",
    "sampled_layers",
]


def build_network(name: str, input_shape: Sequence[int], classes: int) -> Network:
    """The network that an experiment names: `lenet`, `resnet18`, `wrn-28-10`, `mlp` or `mlp:64-32`.

    Raises:
        ValueError: no network has the name, or the inputs do not suit it.
    """
    if name == "lenet":
        return LeNet(input_shape, classes)
    if name == "resnet18":
        return ResNet18(input_shape, classes)
    if wide := re.fullmatch(r"wrn-([0-9]+)-([0-9]+)", name):
        return WideResNet(input_shape, classes, depth=int(wide[1]), width=int(wide[2]))
    kind, _, hidden = name.partition(":")
    if kind != "mlp":
        raise ValueError(f"no network is named {name}")
    return MLP(input_shape, classes, [int(units) for units in hidden.split("-")] if hidden else (100,))
