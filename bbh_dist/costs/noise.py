"""Noise without numbers: shapes only."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bbh_dist.costs.trace import Operation
from bbh_dist.noise import BLOCK, SMALL_BLOCK, Noise, drawn_blocks

META = torch.device("meta")


@dataclass(frozen=True)
class CountedNoise(Noise):
    """Noise that notes what drawing it would take on a CPU; GPUs draw whole blocks."""

    operations: list[Operation] = field(default_factory=list)

    def normal(self, name: str, size: int, part: range | None = None) -> Tensor:
        """A shape (S, size), or (S, len(part))."""
        part = range(size) if part is None else part
        self._count(name, drawn_blocks(part, BLOCK, size, on_cpu=True), self.dtype)
        return super().normal(name, size, part)

    def endless_normal(self, name: str, part: range) -> Tensor:
        """A shape (S, len(part))."""
        self._count(name, drawn_blocks(part, SMALL_BLOCK, None, on_cpu=True), self.dtype)
        return super().endless_normal(name, part)

    def endless_integers(self, name: str, part: range) -> Tensor:
        """A shape (S, len(part))."""
        per_word = torch.int64.itemsize // torch.int16.itemsize
        words = range(part.start // per_word, -(-part.stop // per_word))
        self._count(name, drawn_blocks(words, SMALL_BLOCK, None, on_cpu=True), torch.int64)
        return super().endless_integers(name, part)

    def _count(self, name: str, blocks: list[range], dtype: torch.dtype) -> None:
        """Note what drawing the blocks takes for every sample."""
        rows, numbers = len(self.samples), sum(map(len, blocks))
        if blocks:
            touched = rows * numbers * dtype.itemsize
            self.operations.append(Operation("random", 0, touched, calls=rows * len(blocks), name=name))
