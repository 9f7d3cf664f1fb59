"""What a machine can do, measured on the spot in a second or two, so that costs can be turned into seconds."""

import itertools
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from bbh_dist.costs.step import StepCosts
from bbh_dist.costs.trace import Trace

_BEYOND_CACHE_BYTES = 1 << 28
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_FEWEST_REPEATS = 3
_PATIENCE_SECONDS = 0.15
_SIZES_BYTES = (1 << 18, 1 << 21, 1 << 24, 1 << 26)


@dataclass(frozen=True)
class Machine:
    """Throughputs of one worker's device, in units per second. They are for float32."""

    name: str
    bandwidth: float
    """Bytes to and from memory beyond any cache."""
    matmul_flops: float
    conv_flops: tuple[tuple[int, float], ...]
    """Input channels, and throughput of convolutions that have them: with few there is little to reuse."""
    operation_seconds: float
    """What an operation takes however small it is."""
    random_numbers: float = math.inf
    """Normal numbers."""
    link_bandwidth: float = math.inf
    """Bytes that a worker sends to others."""
    cached: tuple[tuple[int, float], ...] = ()
    """Bytes that an operation touches, and throughput of those of this size, allocation of the result included."""
    memory_bytes: int = 0
    overhead_bytes: int = 0
    """Memory that a worker takes before it has any tensor."""

    def bytes_per_second(self, touched_bytes: int, *, in_place: bool = False) -> float:
        """Throughput of an operation that touches so many bytes."""
        beyond = not self.cached or (in_place and touched_bytes > self.cached[-1][0])
        return self.bandwidth if beyond else _interpolated(self.cached, touched_bytes)

    def flops_per_second(self, kind: str, channels: int) -> float:
        """Throughput of a kind of operation."""
        return _interpolated(self.conv_flops, channels) if kind == "convolution" else self.matmul_flops


def lower_bound_seconds(costs: StepCosts, machine: Machine) -> float:
    """Time below which no step can be: for the bytes that have to move, or for the operations at the best rate."""
    rate = machine.matmul_flops * 4 / costs.element_bytes
    return max(costs.bytes_moved / machine.bandwidth, costs.flops / rate)


def measure_machine(threads: int) -> Machine:
    """This machine's throughputs on CPU with so many threads, in one process. Takes about two seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Machine(
            name="cpu",
            bandwidth=_bandwidth(),
            matmul_flops=_matmul_flops(),
            conv_flops=tuple((channels, _conv_flops(channels)) for channels in (1, 4, 16, 64)),
            operation_seconds=_operation_seconds(),
            random_numbers=_random_numbers(),
            link_bandwidth=_link_bandwidth(),
            cached=tuple((3 * size, _cached_bandwidth(size)) for size in _SIZES_BYTES),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )
    finally:
        torch.set_num_threads(before)


def _interpolated(points: tuple[tuple[int, float], ...], at: int) -> float:
    """A rate between measured ones, linear in the logarithm of the size; beyond them that of the last."""
    at = max(at, 1)
    if at <= points[0][0]:
        return points[0][1]
    for (low, low_rate), (high, high_rate) in itertools.pairwise(points):
        if at <= high:
            share = math.log(at / low) / math.log(high / low)
            return low_rate + share * (high_rate - low_rate)
    return points[-1][1]


def _seconds(work: Callable[[], object]) -> float:
    """Shortest time of a call, because other processes only ever add to it; the first one is not counted."""
    work()
    times: list[float] = []
    while len(times) < _FEWEST_REPEATS or sum(times) < _PATIENCE_SECONDS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _bandwidth() -> float:
    """Of a triad a = a + s b, in place, so that no line is fetched only to be overwritten."""
    array_bytes = max([_BEYOND_CACHE_BYTES, *_cache_sizes()])
    a, b = (torch.ones(array_bytes // 4) for _ in range(2))
    return 3 * array_bytes / _seconds(lambda: a.add_(b, alpha=0.5))


def _cache_sizes() -> list[int]:
    """Bytes of the caches that the system tells of."""
    texts = [path.read_text().strip() for path in _CACHES.glob("index*/size")]
    return [int(text[:-1]) * _UNITS[text[-1]] for text in texts if text[:-1].isdigit() and text[-1] in _UNITS]


def _cached_bandwidth(size_bytes: int) -> float:
    a, b = (torch.ones(size_bytes // 4) for _ in range(2))
    calls = max(1, (1 << 23) // size_bytes)
    return 3 * size_bytes * calls / _seconds(lambda: [a + b for _ in range(calls)])


def _matmul_flops() -> float:
    size = 1024
    a, b = (torch.ones(size, size) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: a @ b)


def _conv_flops(channels: int) -> float:
    """Of a 5 x 5 convolution, forward and backward."""
    images = torch.ones(32, channels, 16, 16, requires_grad=channels > 1).contiguous(memory_format=torch.channels_last)
    kernel = torch.ones(32, channels, 5, 5, requires_grad=True)

    def work() -> None:
        F.conv2d(images, kernel).sum().backward()

    with Trace() as trace:
        work()
    return trace.flops / _seconds(work)


def _operation_seconds() -> float:
    """Per operation that a trace would count, backward pass included."""
    x, y = (torch.ones(8, requires_grad=True) for _ in range(2))

    def work() -> None:
        z = x
        for _ in range(50):
            z = F.leaky_relu(z[None] + y, 0.1)[0] * 0.5
        z.sum().backward()

    with Trace() as trace:
        work()
    return _seconds(work) / len(trace.operations)


def _random_numbers() -> float:
    numbers = torch.empty(1 << 20)
    return numbers.numel() / _seconds(numbers.normal_)


def _link_bandwidth() -> float:
    """Of a socket between two threads: an upper bound for processes on this machine."""
    size, chunk = 1 << 25, bytes(1 << 20)
    sender, receiver = socket.socketpair()

    def send() -> None:
        for _ in range(size // len(chunk)):
            sender.sendall(chunk)

    with sender, receiver:
        started = time.perf_counter()
        thread = threading.Thread(target=send)
        thread.start()
        received = 0
        while received < size:
            received += len(receiver.recv(1 << 20))
        thread.join()
        return size / (time.perf_counter() - started)
