"""Short measurements of this machine. They leave torch's own random numbers alone."""

import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from bbh_dist.costs.trace import Trace
from bbh_dist.products import linear

_BEYOND_CACHE_BYTES = 1 << 28
_PART_BYTES = 1 << 22
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_FEWEST_REPEATS = 3
_PATIENCE_SECONDS = 0.1


def resident_bytes() -> int:
    """Memory of this process once torch has what it makes at its first step; 0 where the system does not say."""
    from bbh_dist.config import Optimizer
    from bbh_dist.training.optimizers import DenseOptimizer  # the memory of what it imports is asked for too

    parameter = torch.nn.Parameter(torch.ones(8))
    _convolve(1, images=4)
    (parameter @ parameter).backward()
    DenseOptimizer(Optimizer(), {"parameter": parameter}).step()
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _seconds(work: Callable[[], object]) -> float:
    """Shortest time of a call, because other processes only ever add to it; the first one is not counted."""
    work()
    times: list[float] = []
    while len(times) < _FEWEST_REPEATS or sum(times) < _PATIENCE_SECONDS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def bandwidth() -> float:
    """Of a triad a = a + s b over arrays larger than any cache, in place, so that nothing is fetched to be overwritten.

    By the quickest quarter of short parts, in most of which other processes do not come between; where threads wait for
    each other, longer ones suffer less from it.
    """
    array_bytes = max([_BEYOND_CACHE_BYTES, *_cache_sizes()])
    part_bytes = _PART_BYTES * (1 if torch.get_num_threads() == 1 else 16)
    a, b = (torch.ones(array_bytes // 4).split(part_bytes // 4) for _ in range(2))
    times = []
    for x, y in [*zip(a, b, strict=True)] * 2:
        started = time.perf_counter()
        x.add_(y, alpha=0.5)
        times.append((time.perf_counter() - started) / x.nbytes)
    return 3 / statistics.quantiles(times, n=4)[0]


def _cache_sizes() -> list[int]:
    """Bytes of the caches that the system tells of."""
    texts = [path.read_text().strip() for path in _CACHES.glob("index*/size")]
    return [int(text[:-1]) * _UNITS[text[-1]] for text in texts if text[:-1].isdigit() and text[-1] in _UNITS]


def cached_bandwidth(size_bytes: int) -> float:
    """Of a sum of two arrays of a size, which makes a third."""
    a, b = (torch.ones(size_bytes // 4) for _ in range(2))
    calls = max(1, (1 << 23) // size_bytes)
    return 3 * size_bytes * calls / _seconds(lambda: [a + b for _ in range(calls)])


def matmul_flops() -> float:
    """Of a large matrix product."""
    size = 1024
    a, b = (torch.ones(size, size) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: linear(a, b))


def conv_flops(channels: int) -> float:
    """Of a convolution of so many channels, forward and backward."""
    with Trace() as trace:
        _convolve(channels)
    return trace.flops / _seconds(lambda: _convolve(channels))


def _convolve(channels: int, images: int = 100) -> None:
    """A 5 x 5 convolution, forward and backward; few channels are taken for inputs, which need no gradient."""
    is_input = channels <= 3
    side = 28 if is_input else 14
    x = torch.ones(images, channels, side, side, requires_grad=not is_input)
    # 24 filters are one and a half vectors: most networks' numbers do not suit the processor exactly.
    kernel = torch.ones(24, channels, 5, 5, requires_grad=True)
    F.conv2d(x.contiguous(memory_format=torch.channels_last), kernel).sum().backward()


def operation_seconds() -> float:
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


def random_numbers() -> float:
    """Normal numbers per second."""
    numbers, generator = torch.empty(1 << 20), torch.Generator()
    return numbers.numel() / _seconds(lambda: numbers.normal_(generator=generator))


def pooled_numbers() -> float:
    """Numbers per second of which the greatest of every four is taken."""
    # Of random numbers: where the greatest always stands in one place, processors guess it.
    images = torch.rand(100, 16, 24, 24, generator=torch.Generator())
    return images.numel() / _seconds(lambda: F.max_pool2d(images, 2))


def link_bandwidth() -> float:
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
