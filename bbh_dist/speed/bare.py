"""LeNet in plain torch with its weights given: what a prediction with sampled weights is compared with."""

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.networks import LeNet
from bbh_dist.speed.timing import alternate, milliseconds, summary

BATCHES = (50, 100, 250, 500, 1000)


@torch.no_grad()
def logits(weights: Mapping[str, Tensor], images: Tensor, batch: int, channels_last: bool) -> Tensor:
    """Logits (N, C) of images (N, 1, H, W), `batch` at a time."""
    parts = []
    for x in images.split(batch):
        for name in ("conv1", "conv2"):
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            x = F.relu(F.max_pool2d(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"]), 2))
        x = F.relu(F.linear(x.flatten(1), weights["dense1.weight"], weights["dense1.bias"]))
        parts.append(F.linear(x, weights["dense2.weight"], weights["dense2.bias"]))
    return torch.cat(parts)


def random_weights(network: LeNet) -> dict[str, Tensor]:
    """A tensor for each of the network's, at its scale at the start."""
    return {tensor.name: torch.randn(tensor.shape) * tensor.scale for tensor in network.tensors}


def fastest(weights: Mapping[str, Tensor], images: Tensor, rounds: int) -> tuple[int, bool]:
    """The batch size and whether channels come last with which the best of some passes, in turns, is the shortest."""
    ways = [(batch, last) for batch in BATCHES if batch <= max(BATCHES[0], len(images)) for last in (False, True)]
    runs = {str(way): partial(milliseconds, partial(logits, weights, images, *way)) for way in ways}
    times = alternate(runs, rounds)
    return min(ways, key=lambda way: summary(times[str(way)])["min"])
