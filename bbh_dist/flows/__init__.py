"""Normalizing flows of the units of many layers at once: masked RealNVP, and planar ones for layers of one unit.

Layers have nothing to do with each other, but their units lie side by side in one vector, so that a step of all layers
is a few operations however many there are.
Legend: S weight samples, L layers, Z units of all layers, H hidden units.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbh_dist.flows.masked import MaskedRealNVP
from bbh_dist.flows.planar import Planar

__all__ = ["Flows", "MaskedRealNVP", "Planar"]


class Flows(nn.Module):
    """`count` steps one after another for layers of `units` units each; none is the identity."""

    def __init__(self, units: Sequence[int], count: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for index in range(count):
            if max(units) > 1:
                steps.append(MaskedRealNVP(units, index, hidden, generator))
            if min(units) == 1:
                steps.append(Planar(units, generator))
        self.steps = nn.ModuleList(steps)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Where the flows take z (S, Z), and log |det| of the Jacobian (S,), nats, summed over layers."""
        log_determinant = z.new_zeros(len(z))
        for step in self.steps:
            z, term = step(z)
            log_determinant = log_determinant + term
        return z, log_determinant
