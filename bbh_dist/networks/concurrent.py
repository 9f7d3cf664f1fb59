"""A network under several weight samples at once, a thread for each sample.

The way to train convolutional members on CPU, by measurement (2 cores, LeNet, 10 samples, 100 examples each, a whole
step): 76 ms against 120 ms in one pass over all samples and 94 ms for one sample after another with two threads each.
Activations of all samples at once are fetched from the system anew each step, tens of megabytes, and leave the cache;
small operations don't share out well over threads. Dense layers alone are as fast in one pass.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbh_dist.networks.network import Network
from bbh_dist.networks.sampled import sampled_layers

T = TypeVar("T")


def concurrent(network: Network, weights: Mapping[str, Tensor], x: Tensor, *, in_turn: bool = False) -> Tensor:
    """Outputs (S, B, C) for inputs (S, B, ...) under weight samples (S, *shape), differentiable in the weights, once.

    `in_turn` takes one sample after the other, for networks that exchange something with other workers.
    """
    threads = 1 if in_turn else torch.get_num_threads()
    outputs: Tensor = _Concurrent.apply(network, x, threads, list(weights), *weights.values())
    return outputs


class _Concurrent(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: Network, x: Tensor, threads: int, names: list[str], *weights: Tensor) -> Tensor:
        def outputs_of(sample: int) -> tuple[list[Tensor], Tensor]:
            leaves = [weight[sample : sample + 1].detach().requires_grad_() for weight in weights]
            with torch.enable_grad():
                layer = sampled_layers(network.layers, dict(zip(names, leaves, strict=True)))
                return leaves, network(layer, x[sample : sample + 1])

        ctx.threads, ctx.graphs = threads, _map(outputs_of, len(x), threads)
        return torch.cat([outputs.detach() for _, outputs in ctx.graphs])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        graphs, ctx.graphs = ctx.graphs, None
        whole = [leaf.new_empty(len(graphs), *leaf.shape[1:]) for leaf in graphs[0][0]]

        def differentiate(sample: int) -> None:
            leaves, outputs = graphs[sample]
            parts = torch.autograd.grad(outputs, leaves, gradient[sample : sample + 1])
            for target, part in zip(whole, parts, strict=True):
                target[sample : sample + 1] = part

        _map(differentiate, len(graphs), ctx.threads)
        return None, None, None, None, *whole


def _map(function: Callable[[int], T], count: int, threads: int) -> list[T]:
    """The function's results for 0, 1, ... in so many threads, each of which has one of torch's to itself."""
    run = map if threads == 1 else _pool(threads).map
    return list(run(function, range(count)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    ready, before = threading.Barrier(threads + 1), torch.get_num_threads()

    def alone() -> None:
        torch.get_num_threads()  # torch sets a thread's number at its first use, and would undo what follows
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(threads, "members", initializer=alone)
    for _ in range(threads):
        pool.submit(lambda: None)
    ready.wait()
    torch.set_num_threads(before)  # the number is also that of all threads to come
    return pool
