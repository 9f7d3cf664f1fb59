"""How work is cut: arithmetic only."""

import math
from dataclasses import dataclass


def part(total: int, parts: int, index: int) -> range:
    """The indices out of `total` that part `index` of `parts` holds, by the rule of `torch.chunk`.

    All parts are as long as the first but the last ones, which may be shorter or empty; `torch.distributed` lays out
    sharded tensors in the same way.
    """
    length = -(-total // parts)
    return range(min(total, index * length), min(total, (index + 1) * length))


@dataclass(frozen=True)
class SampleShare:
    """Which of the first `count` weight samples a worker evaluates: those of group `index` of `groups` equal ones.

    A worker with another index evaluates other samples on the same examples.
    """

    count: int
    groups: int = 1
    index: int = 0

    def of(self, index: int) -> range:
        """The samples of another group; indices are taken modulo the number of groups."""
        length = self.count // self.groups
        first = index % self.groups * length
        return range(first, first + length)

    @property
    def own(self) -> range:
        """This worker's samples."""
        return self.of(self.index)

    @classmethod
    def among(cls, count: int, workers: int, rank: int) -> "SampleShare":
        """The share of a worker where `workers` split `count` samples into as many groups as divide both."""
        groups = math.gcd(count, workers)
        return cls(count, groups, rank % groups)
