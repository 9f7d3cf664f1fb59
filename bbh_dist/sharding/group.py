"""A group of worker processes, seen from one of them, with a count of what this one sends."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
        return self.begin_sum(tensor, kind).wait()

    def begin_sum(self, tensor: Tensor, kind: str) -> "Sum":
        """Begin to sum a tensor over workers, in place."""
        if self.size == 1:
            return Sum(tensor)
        self.traffic[kind] += ring_bytes(tensor.nbytes, self.size)
        return self._begun(tensor)

    def sum_together(self, of_kinds: Mapping[str, Sequence[Tensor]]) -> None:
        """Replace the tensors of all kinds by their sums over workers, in one message; in place."""
        tensors = [tensor for tensors in of_kinds.values() for tensor in tensors]
        if self.size == 1 or not tensors:
            return
        for kind, some in of_kinds.items():
            if some:
                self.traffic[kind] += ring_bytes(sum(tensor.nbytes for tensor in some), self.size)
        if len(tensors) == 1 and tensors[0].is_contiguous():
            self._begun(tensors[0]).wait()
            return
        joined = self._begun(torch.cat([tensor.flatten() for tensor in tensors])).wait()
        for tensor, whole in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(whole.view_as(tensor))

    def exchange(self, outgoing: Sequence[Tensor], incoming: Sequence[int], kind: str) -> "Exchange":
        """Begin to send every worker its tensor, `outgoing`; `incoming` has the sizes of what they send to this one.

        What is for this one is not copied: its piece is a view of `outgoing` where that is contiguous.
        """
        stays = outgoing[self.rank].flatten()
        if self.size == 1:
            return Exchange([stays])
        leaving = [stays[:0] if rank == self.rank else tensor.flatten() for rank, tensor in enumerate(outgoing)]
        coming = [0 if rank == self.rank else size for rank, size in enumerate(incoming)]
        sizes = [tensor.numel() for tensor in leaving]
        # With two workers one tensor leaves, from where it lies: a concatenation would copy it.
        sent = leaving[1 - self.rank] if self.size == 2 else torch.cat(leaving)
        received = sent.new_empty(sum(coming))
        self.traffic[kind] += sent.nbytes
        under_way = self._swap(received, sent, coming, sizes)
        pieces = list(received.split(coming))
        pieces[self.rank] = stays
        return Exchange(pieces, sent, under_way)

    def wait(self) -> None:
        """Return when all workers have called this."""
        if self.size > 1:
            dist.barrier(group=self.process_group)

    def _begun(self, tensor: Tensor) -> "Sum":
        return Sum(tensor, self._add_up(tensor))

    def _add_up(self, tensor: Tensor) -> dist.Work | None:
        return dist.all_reduce(tensor, group=self.process_group, async_op=True)

    def _swap(self, received: Tensor, sent: Tensor, incoming: list[int], outgoing: list[int]) -> dist.Work | None:
        return dist.all_to_all_single(received, sent, incoming, outgoing, group=self.process_group, async_op=True)


@dataclass
class Sum:
    """A sum over workers that may still be under way."""

    _tensor: Tensor
    _under_way: dist.Work | None = None

    def wait(self) -> Tensor:
        """The sum, the same on each worker; on a GPU it is the stream that waits."""
        if self._under_way is not None:
            self._under_way.wait()
        self._under_way = None
        return self._tensor


@dataclass
class Exchange:
    """Tensors on their way between workers."""

    _received: list[Tensor]
    _sent: Tensor | None = None
    """Kept until all has left."""
    _under_way: dist.Work | None = None

    def wait(self) -> list[Tensor]:
        """What each worker sent to this one, flat; on a GPU it is the stream that waits."""
        if self._under_way is not None:
            self._under_way.wait()
        self._sent = self._under_way = None
        return self._received


def ring_bytes(size: int, workers: int) -> int:
    """Bytes that a worker sends while `size` bytes are summed over a ring of workers."""
    return 2 * (workers - 1) * size // workers
