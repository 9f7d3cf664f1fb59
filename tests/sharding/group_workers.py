"""Groups of gloo workers, one after another: what travels between them, and what it amounts to.

Usage: group_workers.py FOLDER. Workers are forked, so that torch is imported once. Each writes what became of its part
to FOLDER/PART-RANK.txt: "ok", or how it failed.
"""

import importlib
import itertools
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked import fork_workers
from torch import Tensor
from torch.distributed.tensor import DTensor

from bbh_dist.sharding import SampleShare, Workers, part

TOTALS = (20, 5, 1, 7)
"""Weights of each tensor; with 4 shards some have none of it."""
FEW = (1,)
"""Of which all but one shard have none."""


def drawn(samples: int, totals: Sequence[int]) -> list[Tensor]:
    """Whole weight samples, the same on every worker."""
    generator = torch.Generator().manual_seed(samples)
    return [torch.randn(samples, total, generator=generator, dtype=torch.float64) for total in totals]


def factors(share: SampleShare, worker: int, totals: Sequence[int]) -> list[Tensor]:
    """What a worker multiplies its samples with: it stands for the examples that it has and others have not."""
    generator = torch.Generator().manual_seed(1000 + worker)
    return [torch.randn(len(share.own), total, generator=generator, dtype=torch.float64) for total in totals]


def check_weights(workers: Workers, totals: Sequence[int], samples: int, count: int, splittable: bool) -> None:
    """The weights that a worker gets are slices; the gradient of its rows is the sum over all that used them."""
    shards = workers.shards
    share = workers.samples(count, splittable=splittable)
    whole_and_own = list(zip(drawn(samples, totals), map(shards.part, totals), strict=True))
    rows = [whole[:, own.start : own.stop].clone().requires_grad_() for whole, own in whole_and_own]
    lengths = [[len(part(total, shards.count, shard)) for total in totals] for shard in range(shards.count)]
    weights = shards.weights(rows, lengths, share)
    for found, (whole, _) in zip(weights, whole_and_own, strict=True):
        assert torch.equal(found, whole[share.own.start : share.own.stop])
    sum((w * f).sum() for w, f in zip(weights, factors(share, workers.rank, totals), strict=True)).backward()
    expected = [torch.zeros(samples, total, dtype=torch.float64) for total in totals]
    for rank in range(workers.size):
        theirs = Workers(rank, workers.size, shards=shards).samples(count, splittable=splittable)
        for gradient, factor in zip(expected, factors(theirs, rank, totals), strict=True):
            gradient[theirs.own.start : theirs.own.stop] += factor
    for tensor, gradient, (_, own) in zip(rows, expected, whole_and_own, strict=True):
        torch.testing.assert_close(tensor.grad, gradient[:, own.start : own.stop], rtol=1e-13, atol=1e-13)


def weights_are_slices(workers: Workers) -> None:
    """However many shards there are, and replicas of them."""
    for shards in range(1, workers.size + 1):
        if workers.size % shards:
            continue
        of = Workers.of_process_group(shards)
        assert (of.rank, of.size, of.shards.count, of.shards.replicas.size) == (
            workers.rank,
            workers.size,
            shards,
            workers.size // shards,
        )
        for (samples, count), splittable in itertools.product([(1, 1), (4, 2), (4, 4), (5, 3), (6, 6)], [True, False]):
            check_weights(of, TOTALS, samples, count, splittable)
            check_weights(of, FEW, samples, count, splittable)


def sums_over_shards(workers: Workers) -> None:
    """Every worker differentiates its own term."""
    shards = Workers.of_process_group(workers.size).shards
    term = torch.tensor([1.0, 10.0]) * (workers.rank + 1)
    term.requires_grad_()
    total = shards.sum(term * 2)
    assert torch.equal(total, torch.tensor([2.0, 20.0]) * sum(range(1, workers.size + 1)))
    (total * torch.tensor([3.0, 5.0])).sum().backward()
    assert term.grad is not None
    assert term.grad.tolist() == [6, 10]
    assert term.tolist() == [workers.rank + 1, 10 * (workers.rank + 1)]


def an_exchange(workers: Workers) -> None:
    """Worker r sends s + 1 numbers r to worker s; only those for others travel, its own stay where they are."""
    group = workers.all
    outgoing = [torch.full((to + 1,), float(workers.rank)) for to in range(workers.size)]
    incoming = [workers.rank + 1] * workers.size
    received = group.exchange(outgoing, incoming, "numbers").wait()
    assert [tensor.tolist() for tensor in received] == [
        [float(sender)] * (workers.rank + 1) for sender in range(workers.size)
    ]
    assert received[workers.rank].data_ptr() == outgoing[workers.rank].data_ptr()
    others = sum(to + 1 for to in range(workers.size) if to != workers.rank)
    assert workers.traffic == {"numbers": 4 * others}
    halves = [torch.ones(2, 3, dtype=torch.bfloat16) for _ in range(workers.size)]
    group.exchange(halves, [6] * workers.size, "halves").wait()
    assert workers.traffic["halves"] == 12 * (workers.size - 1)


def a_sum(workers: Workers) -> None:
    """2 (W - 1) / W of the bytes; several tensors are one message, in place, whatever their strides."""
    one = torch.full((6,), 2.0, dtype=torch.float64)
    assert workers.sum(one, "one") is one
    assert one.tolist() == [2.0 * workers.size] * 6
    assert workers.traffic["one"] == 2 * (workers.size - 1) * 48 // workers.size
    tensors = [torch.ones(3, 2), torch.arange(6.0).view(2, 3).mT, torch.tensor(5.0), torch.empty(0)]
    workers.all.sum_together({"some": tensors[:2], "others": tensors[2:]})
    expected = [torch.ones(3, 2), torch.arange(6.0).view(2, 3).mT, torch.tensor(5.0), torch.empty(0)]
    for tensor, before in zip(tensors, expected, strict=True):
        assert torch.equal(tensor, before * workers.size)
    assert workers.traffic["some"] == 2 * (workers.size - 1) * 48 // workers.size
    assert workers.traffic["others"] == 2 * (workers.size - 1) * 4 // workers.size
    workers.all.sum_together({"nothing": []})
    lone = torch.arange(6.0).view(2, 3).mT
    workers.all.sum_together({"nothing": [], "lone": [lone]})
    assert torch.equal(lone, torch.arange(6.0).view(2, 3).mT * workers.size)
    assert set(workers.traffic) == {"one", "some", "others", "lone"}


def rows_become_a_distributed_tensor(workers: Workers) -> None:
    of = Workers.of_process_group(workers.size)
    whole = torch.arange(15.0).view(5, 3)
    own = of.shards.part(5)
    tensor = of.sharded(whole[own.start : own.stop], 5)
    assert isinstance(tensor, DTensor)
    assert tensor.shape == (5, 3)
    assert torch.equal(tensor.full_tensor(), whole)
    alone = Workers.of_process_group(1)
    assert alone.sharded(whole, 5) is whole


def three_shards_do_not_divide_four(workers: Workers) -> None:
    with pytest.raises(ValueError, match="4 workers do not divide into groups of 3 shards"):
        Workers.of_process_group(3)


Part = Callable[[Workers], None]
BOTH: list[Part] = [weights_are_slices, sums_over_shards, an_exchange, a_sum, rows_become_a_distributed_tensor]
GROUPS: list[tuple[int, list[Part]]] = [(2, BOTH), (4, [*BOTH, three_shards_do_not_divide_four])]


def work(parts: list[Part], size: int, folder: Path, rank: int) -> None:
    """What one of the workers does."""
    dist.init_process_group(
        "gloo",
        init_method=(folder / f"meet-{size}").as_uri(),
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=30),
    )
    for one in parts:
        outcome = folder / f"{one.__name__}-{size}-{rank}.txt"
        try:
            one(Workers.of_process_group())
        except BaseException:
            outcome.write_text(traceback.format_exc())
            raise
        outcome.write_text("ok")
    dist.barrier()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # torch does at first use, which would be in every worker
    for size, parts in GROUPS:
        fork_workers(size, partial(work, parts, size, folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
