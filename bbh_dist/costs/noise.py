"""Noise without numbers: shapes only."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bbh_dist.costs.trace import Operation
from bbh_dist.noise import BLOCK, Noise

META = torch.device("meta")


@dataclass(frozen=True)
class CountedNoise(Noise):
    """Noise that notes what drawing it would take."""

    operations: list[Operation] = field(default_factory=list)

    def normal(self, name: str, size: int, part: range | None = None) -> Tensor:
        """A shape (S, size), or (S, len(part))."""
        part = range(size) if part is None else part
        if part:
            blocks = range(part.start // BLOCK, -(-part.stop // BLOCK))
            numbers = min(size, blocks.stop * BLOCK) - blocks.start * BLOCK
            touched, calls = numbers * self.dtype.itemsize, len(blocks)
            rows = len(self.samples)
            self.operations.append(Operation("random", 0, rows * touched, calls=rows * calls, name=name))
        return super().normal(name, size, part)
