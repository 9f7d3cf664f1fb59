"""toy: regression of a cubic from 20 points, y = x^3 + N(0, 9^2) with x ~ U(-4, 4), generated and never downloaded.

500 points each for validation and test are drawn from the same distribution under other keys. The network gets x / 4,
and its output times 32, so that both lie near 1 (the standard deviation of x^3 over the range is 24); likelihood and
measures are those of x and y themselves. The curve of a run's figure goes beyond the data, from -6 to 6.
Source: Hernandez-Lobato & Adams 2015, section 5.1; Pawlowski et al. 2017.
"""

import torch
from torch import Tensor

from bbh_dist.noise import keyed_generator
from bbh_dist.tasks.likelihood import Gaussian
from bbh_dist.tasks.task import Curve, Split, Task

EXAMPLES = 20
NOISE_STDDEV = 9.0
_SEED = 1
_HELD_OUT = 500
_RANGE, _GRID_RANGE, _GRID_POINTS = 4.0, 6.0, 500
_OUTPUT_SCALE = 32.0


def load_toy() -> Task:
    """The task: inputs (N, 1), labels (N,) floats in the units of y."""
    train_x, train = _points("train", EXAMPLES)
    _, validation = _points("validation", _HELD_OUT)
    _, test = _points("test", _HELD_OUT)
    grid = torch.linspace(-_GRID_RANGE, _GRID_RANGE, _GRID_POINTS)
    curve = Curve(grid, scaled(grid), grid**3, train_x)
    return Task("toy", Gaussian(NOISE_STDDEV, scale=_OUTPUT_SCALE), train, validation, test, curve=curve)


def _points(part: str, count: int) -> tuple[Tensor, Split]:
    """x (N,) of a part, and its split."""
    generator = keyed_generator("toy", part, _SEED)
    x = _RANGE * (2 * torch.rand(count, generator=generator) - 1)
    y = x**3 + NOISE_STDDEV * torch.randn(count, generator=generator)
    return x, Split(scaled(x), y)


def scaled(x: Tensor) -> Tensor:
    """Inputs (N, 1) of x (N,)."""
    return x[:, None] / _RANGE
