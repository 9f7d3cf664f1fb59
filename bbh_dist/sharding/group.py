"""A group of worker processes, seen from one of them, with a count of what this one sends."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """This worker's rank among `size` workers; collective calls have to be made by all of them.

    `traffic` counts the bytes that this worker sends to others, by kind: for a sum those of a ring, which are the
    fewest possible, for an exchange those that leave.
    """

    rank: int = 0
    size: int = 1
    process_group: dist.ProcessGroup | None = None
    traffic: Counter[str] = field(default_factory=Counter)

    def sum(self, tensor: Tensor, kind: str) -> Tensor:
        """The sum over workers, the same on each; in place."""
        if self.size > 1:
            self.traffic[kind] += ring_bytes(tensor.nbytes, self.size)
            self._add_up(tensor)
        return tensor

    def sum_together(self, tensors: Sequence[Tensor], kind: str) -> None:
        """Replace tensors by their sums over workers, in one message; in place."""
        if self.size == 1 or not tensors:
            return
        if len(tensors) == 1 and tensors[0].is_contiguous():
            self.sum(tensors[0], kind)
            return
        joined = self.sum(torch.cat([tensor.flatten() for tensor in tensors]), kind)
        for tensor, whole in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(whole.view_as(tensor))

    def exchange(self, outgoing: Sequence[Tensor], incoming: Sequence[int], kind: str) -> list[Tensor]:
        """What each worker sent to this one, flat: `outgoing` has a tensor for each, `incoming` the sizes."""
        if self.size == 1:
            return [outgoing[0].flatten()]
        sizes = [tensor.numel() for tensor in outgoing]
        sent = torch.cat([tensor.flatten() for tensor in outgoing])
        received = sent.new_empty(sum(incoming))
        self._swap(received, sent, list(incoming), sizes)
        self.traffic[kind] += (sum(sizes) - sizes[self.rank]) * sent.element_size()
        return list(received.split(list(incoming)))

    def wait(self) -> None:
        """Return when all workers have called this."""
        if self.size > 1:
            dist.barrier(group=self.process_group)

    def _add_up(self, tensor: Tensor) -> None:
        dist.all_reduce(tensor, group=self.process_group)

    def _swap(self, received: Tensor, sent: Tensor, incoming: list[int], outgoing: list[int]) -> None:
        dist.all_to_all_single(received, sent, incoming, outgoing, group=self.process_group)


def ring_bytes(size: int, workers: int) -> int:
    """Bytes that a worker sends while `size` bytes are summed over a ring of workers."""
    return 2 * (workers - 1) * size // workers
