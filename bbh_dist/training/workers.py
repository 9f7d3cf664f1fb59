"""The workers of a data-parallel run, seen from one of them: torch.distributed, or a lone process."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

_LARGE_ELEMENTS = 1 << 20


@dataclass(frozen=True)
class Workers:
    """This worker's rank among `size` workers; collective calls have to be made by all of them."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_process_group(cls) -> "Workers":
        """The workers of torch's default process group."""
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this worker writes files and logs."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """This worker's rows: contiguous parts whose lengths differ by at most one, each row in exactly one."""
        return rows.tensor_split(self.size)[self.rank]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over workers, the same on each; in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over workers; small ones travel together."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        small = [gradient for gradient in gradients if gradient.numel() < _LARGE_ELEMENTS]
        for gradient in gradients:
            if gradient.numel() >= _LARGE_ELEMENTS:
                dist.all_reduce(gradient)
        if small:
            joined = torch.cat([gradient.flatten() for gradient in small])
            dist.all_reduce(joined)
            for gradient, part in zip(small, joined.split([g.numel() for g in small]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def join(self, rows: Tensor, total: int) -> Tensor:
        """All `total` rows in order, of which each worker has its `share`; the same on each worker."""
        if self.size == 1:
            return rows
        longest = -(-total // self.size)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        lengths = [len(part) for part in torch.empty(total).tensor_split(self.size)]
        return torch.cat([part[:length] for part, length in zip(gathered, lengths, strict=True)])

    def wait(self) -> None:
        """Return when all workers have called this."""
        if self.size > 1:
            dist.barrier()
