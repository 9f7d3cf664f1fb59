"""Noise without numbers: shapes only."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bbh_dist.costs.trace import Operation
from bbh_dist.noise import BLOCK, SMALL_BLOCK, Noise

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
            self._count(name, numbers * self.dtype.itemsize, len(blocks))
        return super().normal(name, size, part)

    def endless_normal(self, name: str, part: range) -> Tensor:
        """A shape (S, len(part))."""
        self._count_small_blocks(name, part, self.dtype)
        return super().endless_normal(name, part)

    def endless_integers(self, name: str, part: range) -> Tensor:
        """A shape (S, len(part))."""
        per_word = torch.int64.itemsize // torch.int16.itemsize
        self._count_small_blocks(name, range(part.start // per_word, -(-part.stop // per_word)), torch.int64)
        return super().endless_integers(name, part)

    def _count_small_blocks(self, name: str, part: range, dtype: torch.dtype) -> None:
        if part:
            blocks = -(-part.stop // SMALL_BLOCK) - part.start // SMALL_BLOCK
            self._count(name, blocks * SMALL_BLOCK * dtype.itemsize, blocks)

    def _count(self, name: str, touched_bytes: int, calls: int) -> None:
        """Note what drawing takes for each sample."""
        rows = len(self.samples)
        self.operations.append(Operation("random", 0, rows * touched_bytes, calls=rows * calls, name=name))
