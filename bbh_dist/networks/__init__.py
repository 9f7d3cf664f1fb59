"""Main networks, written once over abstract layers."""

import re
from collections.abc import Sequence

from torch import Tensor

from bbh_dist.networks.batch_statistics import BatchNormalisation, ReferenceNormalisation
from bbh_dist.networks.estimators import flipout_layers, local_layers
from bbh_dist.networks.layers import Conv2d, Dense, LayerSpec, TensorSpec
from bbh_dist.networks.lenet import LeNet
from bbh_dist.networks.mlp import MLP
from bbh_dist.networks.network import Layer, Network
from bbh_dist.networks.normalisation import GroupNormalisation, Normalisation
from bbh_dist.networks.preact_resnet import PreactResNet
from bbh_dist.networks.resnet import ResNet18
from bbh_dist.networks.sampled import sampled_layers
from bbh_dist.networks.wide_resnet import WideResNet

__all__ = [
    "BatchNormalisation",
    "Conv2d",
    "Dense",
    "GroupNormalisation",
    "Layer",
    "LayerSpec",
    "LeNet",
    "Network",
    "Normalisation",
    "PreactResNet",
    "ReferenceNormalisation",
    "ResNet18",
    "TensorSpec",
    "WideResNet",
    "build_network",
    "build_normalisation",
    "flipout_layers",
    "local_layers",
    "sampled_layers",
]

_DEFAULT_BATCH = 100
"""Default: the paper's batches."""


def build_network(
    name: str, input_shape: Sequence[int], outputs: int, normalisation: Normalisation | None = None
) -> Network:
    """The network that an experiment names: `lenet`, `preact-resnet`, `resnet18`, `wrn-28-10`, `mlp` or `mlp:64-32`.

    `normalisation` is for those that have one; by default preact-resnet normalises by batches, the others by groups.

    Raises:
        ValueError: no network has the name, or the inputs do not suit it.
    """
    if name == "lenet":
        return LeNet(input_shape, outputs)
    if name == "preact-resnet":
        return PreactResNet(input_shape, outputs, normalisation or BatchNormalisation(_DEFAULT_BATCH))
    if name == "resnet18":
        return ResNet18(input_shape, outputs, normalisation)
    if wide := re.fullmatch(r"wrn-([0-9]+)-([0-9]+)", name):
        return WideResNet(input_shape, outputs, int(wide[1]), int(wide[2]), normalisation)
    kind, _, hidden = name.partition(":")
    if kind != "mlp":
        raise ValueError(f"no network is named {name}")
    return MLP(input_shape, outputs, [int(units) for units in hidden.split("-")] if hidden else (100,))


def build_normalisation(kind: str, examples: int, reference: Tensor | None = None) -> Normalisation:
    """The normalisation that an experiment names: `group`, `batch` over `examples`, or by a `reference` batch."""
    if kind == "group":
        return GroupNormalisation()
    return BatchNormalisation(examples) if kind == "batch" else ReferenceNormalisation(reference)
