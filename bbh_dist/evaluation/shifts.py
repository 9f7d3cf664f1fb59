"""Test images that leave the task step by step, turned or mixed, and what becomes of the class probabilities.

Source: Pawlowski et al. 2017 and their code, which indices and angles a task has stands in `tasks`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.evaluation.prediction import entropy, mean_over_samples
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import Workers
from bbh_dist.tasks import Shifts, Split

_DEGREES = 10
_MIXES = 11
_ALONE = Workers()


def shift_curves(
    method: Method, test: Split, shifts: Shifts, noise: Noise, workers: Workers = _ALONE
) -> list[dict[str, Any]]:
    """For each series `kind` (rotation, mix), `labels` of its images, `steps` (degrees; share of the second image),
    `mean` and `stddev` of the class probabilities over weight samples (steps x C), and `entropy` of the mean in nats.

    The standard deviation is that of the samples themselves, divided by S.

    Raises:
        DataError: the images are not those that are meant.
    """
    shifts.check(test.labels)
    described, images = zip(*_series(test.inputs, shifts), strict=True)
    moments = mean_over_samples(_moments, method, torch.cat(images), noise, workers).cpu()
    parts = moments.split([len(part) for part in images])
    return [{**text, **_curve(part)} for text, part in zip(described, parts, strict=True)]


def rotated(image: Tensor, degrees: Sequence[float]) -> Tensor:
    """(A, C, H, W): a square image (C, H, W) turned counter-clockwise by each angle, zeros where nothing is.

    Interpolated bilinearly between pixels.
    """
    angles = torch.deg2rad(image.new_tensor(list(degrees)))
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # From a place in the result to one in the image; y points down.
    turns = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).unflatten(1, (2, 3))
    images = image.expand(len(turns), *image.shape)
    grid = F.affine_grid(turns, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def mixed(first: Tensor, second: Tensor, shares: Sequence[float]) -> Tensor:
    """(A, ...): (1 - share) * first + share * second, for each share."""
    weight = first.new_tensor(list(shares)).view(-1, *[1] * first.dim())
    return (1 - weight) * first + weight * second


def _series(inputs: Tensor, shifts: Shifts) -> list[tuple[dict[str, Any], Tensor]]:
    found = []
    for rotation in shifts.rotations:
        degrees = list(range(-rotation.most_degrees, rotation.most_degrees + 1, _DEGREES))
        text = {"kind": "rotation", "labels": [rotation.image.label], "steps": degrees}
        found.append((text, rotated(inputs[rotation.image.index], degrees)))
    first, second = shifts.mixed
    shares = [step / (_MIXES - 1) for step in range(_MIXES)]
    text = {"kind": "mix", "labels": [first.label, second.label], "steps": shares}
    return [*found, (text, mixed(inputs[first.index], inputs[second.index], shares))]


def _moments(logits: Callable[[Tensor], Tensor], x: Tensor, places: range) -> Tensor:
    """(B, 2, C): sums over samples of probabilities and of their squares."""
    p_SBC = logits(x).double().softmax(-1)
    return torch.stack([p_SBC.sum(0), p_SBC.square().sum(0)], dim=1)


def _curve(moments: Tensor) -> dict[str, Any]:
    mean, square = moments.unbind(1)
    stddev = (square - mean.square()).clamp_min(0).sqrt()
    return {"mean": mean.tolist(), "stddev": stddev.tolist(), "entropy": entropy(mean).tolist()}
