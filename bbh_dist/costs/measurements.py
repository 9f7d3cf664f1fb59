"""Short measurements of this machine. They leave torch's own random numbers alone."""

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

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
_ROUND_BYTES = 1 << 25


def seconds(work: Callable[[], object]) -> list[float]:
    """Times of some calls; the first one is not counted.

    The median is what a call takes in a step, the least what it can take, as other processes only ever add to it.
    """
    work()
    times: list[float] = []
    while len(times) < _FEWEST_REPEATS or sum(times) < _PATIENCE_SECONDS:
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return times


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
    return 3 / quantiles(times, n=4)[0]


def _cache_sizes() -> list[int]:
    """Bytes of the caches that the system tells of."""
    texts = [path.read_text().strip() for path in _CACHES.glob("index*/size")]
    return [int(text[:-1]) * _UNITS[text[-1]] for text in texts if text[:-1].isdigit() and text[-1] in _UNITS]


def sum_bandwidth(size_bytes: int) -> float:
    """Of a sum of two arrays of a size, which makes a third.

    Each time of other ones, as in a step: what it has made is seldom read before much else was.
    """
    calls = max(1, _ROUND_BYTES // size_bytes)
    pairs = [[torch.ones(size_bytes // 4) for _ in range(2)] for _ in range(calls)]
    return 3 * size_bytes * calls / median(seconds(lambda: [a + b for a, b in pairs]))


def matmul_flops(size: int, typical: Callable[[list[float]], float] = median) -> float:
    """Of a product of square matrices; `typical` chooses among times."""
    a, b = (torch.ones(size, size) for _ in range(2))
    return 2 * size**3 / typical(seconds(lambda: linear(a, b)))


def conv_flops(channels: int) -> float:
    """Of a convolution of so many channels, forward and backward."""
    with Trace() as trace:
        _convolve(channels)
    return trace.flops / median(seconds(lambda: _convolve(channels)))


def _convolve(channels: int) -> None:
    """A 5 x 5 convolution, forward and backward; few channels are taken for inputs, which need no gradient."""
    is_input = channels <= 3
    side = 28 if is_input else 14
    x = torch.ones(100, channels, side, side, requires_grad=not is_input)
    # 24 filters are one and a half vectors: most networks' numbers do not suit the processor exactly.
    kernel = torch.ones(24, channels, 5, 5, requires_grad=True)
    F.conv2d(x.contiguous(memory_format=torch.channels_last), kernel).sum().backward()


def random_numbers() -> float:
    """Normal numbers per second."""
    numbers, generator = torch.empty(1 << 20), torch.Generator()
    return numbers.numel() / median(seconds(lambda: numbers.normal_(generator=generator)))


def pooled_numbers() -> float:
    """Numbers per second of which the greatest of every four is taken."""
    # Of random numbers: where the greatest always stands in one place, processors guess it.
    images = torch.rand(100, 16, 24, 24, generator=torch.Generator())
    return images.numel() / median(seconds(lambda: F.max_pool2d(images, 2)))


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
