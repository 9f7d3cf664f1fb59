"""Noise without numbers: shapes only."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bbh_dist.noise import BLOCK, Noise

META = torch.device("meta")


@dataclass(frozen=True)
class CountedNoise(Noise):
    """Noise that counts the numbers that drawing it would take."""

    numbers: list[int] = field(default_factory=list)

    def normal(self, name: str, size: int, part: range | None = None) -> Tensor:
        """A shape (S, size), or (S, len(part))."""
        part = range(size) if part is None else part
        if part:
            first, last = part.start // BLOCK * BLOCK, min(size, -(-part.stop // BLOCK) * BLOCK)
            self.numbers.append(len(self.samples) * (last - first))
        return super().normal(name, size, part)
