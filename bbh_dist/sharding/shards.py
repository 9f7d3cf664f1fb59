"""Weight samples whose rows lie on several workers: sums over the rows, and whole samples for the network.

Every worker generates its rows of all samples. What is computed from rows (distances, squared norms) is summed; what
needs whole weights gets them by an all-to-all, which the backward pass runs in reverse. Replicas hold the same rows
and see other examples: there the gradient of the weight samples is summed, the smallest thing that can be.
Legend: S weight samples, L of them in the likelihood, D_t weights of tensor t, T tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bbh_dist.sharding.group import Group
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
        return _SumOverShards.apply(tensor, self.group) if self.group.size > 1 else tensor

    def weights(
        self, rows: Sequence[Tensor], lengths: Sequence[Sequence[int]], samples: SampleShare | None = None
    ) -> list[Tensor]:
        """Whole weights (L, D_t) of the worker's samples, from every shard's rows, (S, own part of D_t) a tensor.

        `lengths[shard][t]` says how long the parts are. Gradients come back summed over all that used them.
        """
        samples = samples or SampleShare(len(rows[0]))
        if self.group.size == self.replicas.size == 1:
            return list(rows) if len(samples.own) == len(rows[0]) else [_rows(tensor, samples.own) for tensor in rows]
        joined = torch.cat([tensor[: samples.count] for tensor in rows], dim=1)
        totals = [sum(parts) for parts in lengths]
        whole: Tensor = _WholeSamples.apply(joined, self, totals, samples)
        by_shard = [piece.split(list(parts), 1) for piece, parts in zip(whole.split(totals, 1), lengths, strict=True)]
        return [torch.cat(pieces, dim=1) for pieces in zip(*by_shard, strict=True)]


ALONE = Shards()
"""One worker that holds everything."""


class _SumOverShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        return group.sum(tensor.detach().clone(), "divergence")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _WholeSamples(torch.autograd.Function):
    """(L, rows of this shard) to (own samples, rows of all shards, one after another), and gradients back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, shards: Shards, totals: list[int], samples: SampleShare) -> Tensor:
        ctx.shards, ctx.totals, ctx.samples = shards, totals, samples
        group, own = shards.group, len(samples.own)
        outgoing = [_rows(rows, indices) for indices in _wanted(samples, group)]
        received = group.exchange(outgoing, [own * total for total in totals], "weights")
        return torch.cat([piece.view(own, total) for piece, total in zip(received, totals, strict=True)], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        shards, samples, totals = ctx.shards, ctx.samples, ctx.totals
        group, total = shards.group, totals[shards.group.rank]
        wanted = _wanted(samples, group)
        incoming = [len(indices) * total for indices in wanted]
        received = group.exchange(gradient.split(totals, dim=1), incoming, "weight_gradients")
        result = gradient.new_zeros(samples.count, total)
        for indices, piece in zip(wanted, received, strict=True):
            _rows(result, indices).add_(piece.view(len(indices), total))
        return shards.replicas.sum(result, "weight_gradients"), None, None, None


def _wanted(samples: SampleShare, group: Group) -> list[range]:
    """The samples that each worker of a group evaluates; their indices follow their ranks."""
    return [samples.of(samples.index - group.rank + rank) for rank in range(group.size)]


def _rows(tensor: Tensor, indices: range) -> Tensor:
    return tensor[indices.start : indices.stop]
