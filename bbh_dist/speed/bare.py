"""LeNet in plain torch with its weights given: what a prediction with sampled weights is compared with."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.networks import LeNet
from bbh_dist.speed.timing import milliseconds

BATCHES = (50, 100, 200, 500, 1000)


@torch.no_grad()
def logits(weights: Mapping[str, Tensor], images: Tensor, batch: int, channels_last: bool) -> Tensor:
    """Logits (N, C) of images (N, 1, H, W), `batch` at a time."""
    parts = []
    for x in images.split(batch):
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        for name in ("conv1", "conv2"):
            x = F.relu(F.max_pool2d(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"]), 2))
        x = F.relu(F.linear(x.flatten(1), weights["dense1.weight"], weights["dense1.bias"]))
        parts.append(F.linear(x, weights["dense2.weight"], weights["dense2.bias"]))
    return torch.cat(parts)


def random_weights(network: LeNet) -> dict[str, Tensor]:
    """A tensor for each of the network's, at its scale at the start."""
    return {tensor.name: torch.randn(tensor.shape) * tensor.scale for tensor in network.tensors}


def fastest(weights: Mapping[str, Tensor], images: Tensor, passes: int) -> tuple[int, bool]:
    """The batch size and whether channels come last with which a few passes take the least time."""

    def cost(way: tuple[int, bool]) -> float:
        return min(milliseconds(lambda: logits(weights, images, *way)) for _ in range(passes))

    ways = [(batch, last) for batch in BATCHES if batch <= max(BATCHES[0], len(images)) for last in (False, True)]
    return min(ways, key=cost)
