"""Weight samples whose rows lie on several workers: sums over the rows, and whole samples for the network.

Every worker generates its rows of all samples. What is computed from rows (distances, squared norms) is summed; what
needs whole weights gets them by an all-to-all, which the backward pass runs in reverse. Replicas hold the same rows
and see other examples: there the gradient of the weight samples is summed, the smallest thing that can be.
Legend: S weight samples, L of them in the likelihood, D_t weights of tensor t, T tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bbh_dist.sharding.group import Exchange, Group, Sum
from bbh_dist.sharding.parts import SampleShare, part


@dataclass(frozen=True)
class Shards:
    """The workers that share the rows, and the replicas that hold the same ones. Alone, every operation is empty."""

    group: Group = field(default_factory=Group)
    replicas: Group = field(default_factory=Group)

    @property
    def count(self) -> int:
        """Workers over which rows are split."""
        return self.group.size

    def part(self, total: int, shard: int | None = None) -> range:
        """The indices out of `total` that a shard holds, by default this one."""
        return part(total, self.group.size, self.group.rank if shard is None else shard)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over shards, of which every worker differentiates its own term."""
        return self.begin_sum(tensor)()

    def begin_sum(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Begin `sum`; what is returned waits for it, and is to be called once."""
        if self.group.size == 1:
            return lambda: tensor
        begun = self.group.begin_sum(tensor.detach().clone(), "divergence")
        return lambda: _SumOverShards.apply(tensor, begun)

    def weights(
        self, rows: Sequence[Tensor], lengths: Sequence[Sequence[int]], samples: SampleShare | None = None
    ) -> list[Tensor]:
        """Whole weights (L, D_t) of the worker's samples, from every shard's rows, (S, own part of D_t) a tensor.

        `lengths[shard][t]` says how long the parts are. Gradients come back summed over all that used them.
        """
        return self.begin_weights(rows, lengths, samples).wait()

    def begin_weights(
        self, rows: Sequence[Tensor], lengths: Sequence[Sequence[int]], samples: SampleShare | None = None
    ) -> "PendingWeights":
        """As `weights`, which travel until they are waited for; so do their gradients, in the backward pass of that."""
        samples = samples or SampleShare(len(rows[0]))
        if self.group.size == self.replicas.size == 1:
            alone = list(rows) if len(samples.own) == len(rows[0]) else [_rows(tensor, samples.own) for tensor in rows]
            return PendingWeights(alone)
        joined = torch.cat([tensor[: samples.count] for tensor in rows], dim=1)
        all_to_all = _AllToAll(self, samples, [list(parts) for parts in lengths])
        begun: Tensor = _Begin.apply(joined, all_to_all)
        return PendingWeights(None, lambda: list(_Finish.apply(begun, all_to_all)))


@dataclass
class PendingWeights:
    """Whole weights on their way to those who use them."""

    _whole: list[Tensor] | None
    _finish: Callable[[], list[Tensor]] = list

    def wait(self) -> list[Tensor]:
        """The weights (L, D_t), when they are there."""
        if self._whole is None:
            self._whole = self._finish()
        return self._whole


ALONE = Shards()
"""One worker that holds everything."""


class _SumOverShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, begun: Sum) -> Tensor:
        return begun.wait()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _AllToAll:
    """(L, rows of this shard) become whole tensors (own samples, D_t), and gradients go back."""

    def __init__(self, shards: Shards, samples: SampleShare, lengths: list[list[int]]) -> None:
        self.shards, self.samples, self.lengths = shards, samples, lengths
        self.totals = [sum(of_shard) for of_shard in lengths]
        group = shards.group
        self.wanted = [samples.of(samples.index - group.rank + rank) for rank in range(group.size)]
        """The samples that each worker of the group evaluates; their indices follow their ranks."""
        self.pending: Exchange | None = None

    def begin(self, rows: Tensor) -> None:
        own = len(self.samples.own)
        outgoing = [_rows(rows, indices) for indices in self.wanted]
        self.pending = self.shards.group.exchange(outgoing, [own * total for total in self.totals], "weights")

    def finish(self) -> list[Tensor]:
        own, pieces = len(self.samples.own), zip(self._received(), self.totals, self.lengths, strict=True)
        by_shard = [piece.view(own, total).split(of_shard, dim=1) for piece, total, of_shard in pieces]
        return [torch.cat(parts, dim=1) for parts in zip(*by_shard, strict=True)]

    def begin_back(self, gradients: Sequence[Tensor]) -> None:
        own = self.totals[self.shards.group.rank]
        by_tensor = [
            gradient.split(list(parts), dim=1)
            for gradient, parts in zip(gradients, zip(*self.lengths, strict=True), strict=True)
        ]
        outgoing = [torch.cat(parts, dim=1) for parts in zip(*by_tensor, strict=True)]
        incoming = [len(indices) * own for indices in self.wanted]
        self.pending = self.shards.group.exchange(outgoing, incoming, "weight_gradients")

    def finish_back(self, like: Tensor) -> Tensor:
        result = like.new_zeros(self.samples.count, self.totals[self.shards.group.rank])
        for indices, piece in zip(self.wanted, self._received(), strict=True):
            _rows(result, indices).add_(piece.view(len(indices), result.shape[1]))
        return self.shards.replicas.sum(result, "weight_gradients")

    def _received(self) -> list[Tensor]:
        assert self.pending is not None
        received, self.pending = self.pending.wait(), None
        return received


class _Begin(torch.autograd.Function):
    """Takes rows, gives an empty tensor for `_Finish`: what is computed between the two is so in both passes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, all_to_all: _AllToAll) -> Tensor:
        ctx.all_to_all = all_to_all
        all_to_all.begin(rows)
        return rows.new_empty(0)

    @staticmethod
    def backward(ctx: Any, empty: Tensor) -> tuple[Tensor, None]:
        return ctx.all_to_all.finish_back(empty), None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, empty: Tensor, all_to_all: _AllToAll) -> tuple[Tensor, ...]:
        ctx.all_to_all = all_to_all
        return tuple(all_to_all.finish())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.all_to_all.begin_back(gradients)
        return gradients[0].new_empty(0), None


def _rows(tensor: Tensor, indices: range) -> Tensor:
    return tensor[indices.start : indices.stop]
