"""Multi-layer perceptron."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bbh_dist.networks.layers import Dense
from bbh_dist.networks.network import Layer, Network


class MLP(Network):
    """Dense layers with ReLU between them, over flattened inputs."""

    def __init__(self, input_shape: Sequence[int], classes: int, hidden: Sequence[int] = (100,)) -> None:
        units = [math.prod(input_shape), *hidden, classes]
        self.layers = {f"dense{i + 1}": Dense(units[i], units[i + 1]) for i in range(len(units) - 1)}
        self.dropped = tuple(self.layers)[1:]

    def __call__(self, layer: Layer, x: Tensor) -> Tensor:
        """Logits (S, B, C) of inputs (S or 1, B, ...)."""
        x = x.flatten(2)
        *hidden, last = self.layers
        for name in hidden:
            x = torch.relu(layer(name, x))
        return layer(last, x)
