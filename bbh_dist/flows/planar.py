"""Planar flows of one unit (Rezende & Mohamed 2015, equation 10, invertible by appendix A.1).

z' = z + u' tanh(w z + b),   u' w = softplus(u w) - 1 > -1,   log |det| = log(1 + u' w (1 - tanh^2(w z + b)))
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_IDENTITY = math.log(math.e - 1)
"""softplus of it is 1, with which u' is 0."""
_LEAST_W = 1e-3
"""Smaller ones count as so large: u' divides by w."""


class Planar(nn.Module):
    """One step for all layers of one unit, where masks would leave nothing to see or nothing to move.

    Legend: S weight samples, Z units, of which P are alone in their layer.
    """

    alone: Tensor

    def __init__(self, units: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        alone = [end - 1 for end, count in zip(accumulate(units), units, strict=True) if count == 1]
        self.register_buffer("alone", torch.tensor(alone), persistent=False)
        self.w = nn.Parameter(torch.ones(len(alone)))
        self.u = nn.Parameter(_IDENTITY + 0.1 * torch.randn(len(alone), generator=generator))
        self.b = nn.Parameter(torch.zeros(len(alone)))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Where the step takes z (S, Z), and log |det| (S,), nats."""
        own = z.index_select(1, self.alone)
        w = torch.where(self.w.abs() < _LEAST_W, torch.full_like(self.w, _LEAST_W).copysign(self.w), self.w)
        bent, stretch = torch.tanh(w * own + self.b), F.softplus(self.u * w) - 1
        z = z.index_copy(1, self.alone, own + stretch / w * bent)
        return z, torch.log1p(stretch * (1 - bent.square())).sum(1)
