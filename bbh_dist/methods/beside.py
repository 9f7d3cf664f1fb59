"""Networks of their own weights and inputs beside each other on a CPU: one on a thread, not one on all threads.

What lies between a network's large operations, and the waiting for the last thread of each, then is no time of all
threads. Figures are in the docstring of `bbh_dist.methods.ensemble`.

Legend: S networks, B batch.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Piece = Callable[[Tensor, Sequence[Tensor]], Tensor]
"""Outputs (1, B, ...) of one network, whose inputs are (1, B, ...) and weights (1, *shape)."""


def beside_each_other(piece: Piece, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Outputs (S, B, ...) of inputs (S, B, ...) and weights (S, *shape), differentiable once, by the weights alone.

    `piece` runs on several threads at a time. One caller at a time: torch's number of threads is changed meanwhile.
    """
    outputs: Tensor = _BesideEachOther.apply(piece, inputs, *weights)
    return outputs


class _BesideEachOther(torch.autograd.Function):
    """Each network has a graph of its own, and the backward pass runs each of them likewise."""

    @staticmethod
    def forward(ctx: Any, piece: Piece, inputs: Tensor, *weights: Tensor) -> Tensor:
        def run(network: int) -> tuple[list[Tensor], Tensor]:
            own = [weight.narrow(0, network, 1).detach().requires_grad_() for weight in weights]
            with torch.enable_grad():
                return own, piece(inputs.narrow(0, network, 1), own)

        ctx.graphs = _on_threads(run, range(len(inputs)))
        return torch.cat([outputs.detach() for _, outputs in ctx.graphs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        graphs, ctx.graphs = ctx.graphs, None
        found = [torch.empty(len(graphs), *own.shape[1:], dtype=own.dtype) for own in graphs[0][0]]

        def run(network: int) -> None:
            own, outputs = graphs[network]
            parts = torch.autograd.grad(outputs, own, gradient.narrow(0, network, 1), materialize_grads=True)
            for whole, part in zip(found, parts, strict=True):
                whole.narrow(0, network, 1).copy_(part)  # while it is in this core's cache
            graphs[network] = None

        _on_threads(run, range(len(graphs)))
        return None, None, *found


def _on_threads(run: Callable[[int], Any], networks: Iterable[int]) -> list[Any]:
    """What `run` gives for each network; after a failure, too, none is left running."""
    with _single_threaded() as threads:
        running = [_pool(threads).submit(run, network) for network in networks]
        try:
            return [one.result() for one in running]
        finally:
            for one in running:
                one.cancel()
            wait(running)


@contextmanager
def _single_threaded() -> Iterator[int]:
    """Give torch's operations one thread each, on whatever thread they run, and say how many they had together.

    Not on the pool's threads, each for itself: MKL has one number for all.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="bbh_dist-networks")


# The threads of a pool do not exist in a forked child, which would wait for them for ever.
os.register_at_fork(after_in_child=_pool.cache_clear)
