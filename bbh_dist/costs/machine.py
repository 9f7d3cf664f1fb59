"""What a machine can do, measured on the spot, so that costs can be turned into seconds."""

import itertools
import math
import os
from dataclasses import dataclass

import torch

from bbh_dist.costs import measurements, probes
from bbh_dist.costs.step import StepCosts

_CHANNELS = (1, 3, 24, 96)
_MATRICES = (64, 128, 256, 1024)
_SIZES_BYTES = (1 << 18, 1 << 21, 1 << 24, 1 << 26)


@dataclass(frozen=True)
class Machine:
    """Throughputs of one worker's device, in units per second. They are for float32."""

    name: str
    bandwidth: float
    """Bytes to and from memory beyond any cache."""
    matmul_flops: float
    """Of large matrix products at their best."""
    conv_flops: tuple[tuple[int, float], ...]
    """Input channels, and throughput of convolutions that have them: with few there is little to reuse."""
    operation_seconds: float
    """What an operation takes however small it is."""
    random_numbers: float = math.inf
    """Normal numbers."""
    pooled_numbers: float = math.inf
    """Numbers of which the greatest of every four is taken."""
    link_bandwidth: float = math.inf
    """Bytes that a worker sends to others."""
    byte_rates: tuple[tuple[int, float], ...] = ()
    """Bytes that an operation touches, and throughput of those of this size, allocation of the result included; none,
    and beyond the last: the bandwidth."""
    matmul_rates: tuple[tuple[int, float], ...] = ()
    """Operations of a matrix product, and throughput of those of this size; none: always the best one."""
    memory_bytes: int = 0
    overhead_bytes: int = 0
    """Memory that a worker takes beside its tensors."""

    def bytes_per_second(self, touched_bytes: int) -> float:
        """Throughput of an operation that touches so many bytes."""
        beyond = not self.byte_rates or touched_bytes > self.byte_rates[-1][0]
        return self.bandwidth if beyond else _interpolated(self.byte_rates, touched_bytes)

    def flops_per_second(self, kind: str, channels: int, flops: int) -> float:
        """Throughput of an operation of a kind; `flops` are its own."""
        if kind == "convolution":
            return _interpolated(self.conv_flops, channels)
        return _interpolated(self.matmul_rates, flops) if self.matmul_rates else self.matmul_flops


def lower_bound_seconds(costs: StepCosts, machine: Machine) -> float:
    """Time below which no step can be: for the bytes that have to move, or for the operations at the best rate."""
    rate = machine.matmul_flops * 4 / costs.element_bytes
    return max(costs.bytes_moved / machine.bandwidth, costs.flops / rate)


def measure_machine(threads: int) -> Machine:
    """This machine's throughputs on CPU with so many threads, in one process. Takes a few seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        overhead_bytes = probes.overhead_bytes()  # first: it is what is resident, and what follows leaves some more
        return Machine(
            name="cpu",
            bandwidth=measurements.bandwidth(),
            matmul_flops=measurements.matmul_flops(max(_MATRICES), min),
            matmul_rates=tuple((2 * size**3, measurements.matmul_flops(size)) for size in _MATRICES),
            conv_flops=tuple((channels, measurements.conv_flops(channels)) for channels in _CHANNELS),
            operation_seconds=probes.operation_seconds(),
            random_numbers=measurements.random_numbers(),
            pooled_numbers=measurements.pooled_numbers(),
            link_bandwidth=measurements.link_bandwidth(),
            byte_rates=tuple((3 * size, measurements.sum_bandwidth(size)) for size in _SIZES_BYTES),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            overhead_bytes=overhead_bytes,
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
