"""Masked RealNVP with gates (Dinh et al. 2016 as Louizos & Welling 2017, equations 9 and 10, have it).

    h = tanh(f(m z)),  mu = g(h),  sigma = sigmoid(k(h)),  f, g, k affine
    z' = m z + (1 - m) (sigma z + (1 - sigma) mu),         log |det| = sum (1 - m) log sigma

A unit moves to between where it was and mu, so nothing grows however large the network's outputs are.
The paper draws masks anew in every pass. Here they are fixed, every second unit of a layer, and the other half in the
next step: then q(z) is one density, and half of the parameters suffice.
"""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GATE = 2.0
"""Gates start at sigmoid(2) = 0.88, near the identity, as in the authors' code."""
_OUTWARD = 0.1
"""Standard deviation of mu and of the gates' arguments at the start, for hidden units of 1."""


class MaskedRealNVP(nn.Module):
    """One step for all layers of more than one unit: units of the parity of `index` are kept and move the others.

    A layer sees its own units only: products are taken with all layers' and masked, which costs L times the operations,
    of products as small as L networks' of `hidden` units, and spares a loop.

    Legend: S weight samples, L layers, Z units, of which M move and N are kept, H hidden units.
    """

    kept: Tensor
    moved: Tensor
    is_kept: Tensor
    """(L, N): whether a kept unit belongs to a layer, 1 or 0."""
    is_moved: Tensor
    """(L, M)."""

    def __init__(self, units: Sequence[int], index: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        layers = [range(end - count, end) for end, count in zip(accumulate(units), units, strict=True) if count > 1]
        parity = index % 2
        kept, moved = ([layer[first::2] for layer in layers] for first in (parity, 1 - parity))
        for name, parts in (("kept", kept), ("moved", moved)):
            self.register_buffer(name, torch.tensor([unit for part in parts for unit in part]), persistent=False)
            self.register_buffer(f"is_{name}", _membership(list(map(len, parts))), persistent=False)
        fan_in = torch.tensor([len(part) for part in kept for _ in part])
        self.inward = nn.Parameter(torch.randn(len(fan_in), hidden, generator=generator) / fan_in[:, None].sqrt())
        self.hidden_bias = nn.Parameter(torch.zeros(len(layers), hidden))
        movers = self.is_moved.shape[1]
        self.outward = nn.Parameter(_OUTWARD * torch.randn(2 * movers, hidden, generator=generator) / math.sqrt(hidden))
        """Rows of mu, then rows of the gates."""
        self.outward_bias = nn.Parameter(torch.cat([torch.zeros(movers), torch.full((movers,), _GATE)]))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Where the step takes z (S, Z), and log |det| (S,), nats."""
        kept, moved = z.index_select(1, self.kept), z.index_select(1, self.moved)
        hidden = torch.tanh((kept[:, None] * self.is_kept) @ self.inward + self.hidden_bias)
        of_all_layers = F.linear(hidden, self.outward).unflatten(2, (2, -1))
        own = (of_all_layers * self.is_moved[:, None]).sum(1) + self.outward_bias.view(2, -1)
        target, gate = own.unbind(1)
        z = z.index_copy(1, self.moved, torch.lerp(target, moved, gate.sigmoid()))
        return z, F.logsigmoid(gate).sum(1)


def _membership(counts: Sequence[int]) -> Tensor:
    """(L, units): 1 where a unit belongs to the layer, in which there are so many, else 0."""
    return torch.block_diag(*(torch.ones(1, count) for count in counts))
