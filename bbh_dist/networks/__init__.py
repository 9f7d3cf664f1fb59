"""Main networks, written once over abstract layers."""

from collections.abc import Sequence

from bbh_dist.networks.layers import Conv2d, Dense, LayerSpec, TensorSpec
from bbh_dist.networks.lenet import LeNet
from bbh_dist.networks.mlp import MLP
from bbh_dist.networks.network import Layer, Network
from bbh_dist.networks.sampled import sampled_layers

__all__ = ["Conv2d", "Dense", "Layer", "LayerSpec", "LeNet", "Network", "TensorSpec", "build_network", "sampled_layers"]


def build_network(name: str, input_shape: Sequence[int], classes: int) -> Network:
    """The network that an experiment names: `lenet`, `mlp` or `mlp:64-32`.

    Raises:
        ValueError: the inputs do not suit the network.
    """
    if name == "lenet":
        return LeNet(input_shape, classes)
    kind, _, hidden = name.partition(":")
    if kind != "mlp":
        raise ValueError(f"no network is named {name}")
    return MLP(input_shape, classes, [int(units) for units in hidden.split("-")] if hidden else (100,))
