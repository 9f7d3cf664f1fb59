"""What this machine's first CUDA GPU can do, measured on the spot; in float32, as training asks for."""

import time
from collections.abc import Callable

import torch

from bbh_dist.costs.machine import Machine

_NUMBERS, _SIDE = 1 << 28, 8192
_CALLS, _REPEATS = 10, 5


def measure_gpu() -> Machine:
    """The GPU's throughputs. Takes some seconds and 3 GiB of its memory."""
    name, memory = torch.cuda.get_device_name(), torch.cuda.get_device_properties().total_memory
    return measured_machine(name, torch.device("cuda"), torch.cuda.synchronize, memory)


def measured_machine(
    name: str,
    device: torch.device,
    wait: Callable[[], None],
    memory_bytes: int,
    numbers: int = _NUMBERS,
    side: int = _SIDE,
) -> Machine:
    """A device whose calls return before they are done, until `wait`; by arrays and matrices of such sizes."""

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(1 + _REPEATS):
            started = time.perf_counter()
            for _ in range(_CALLS):
                work()
            wait()
            times.append((time.perf_counter() - started) / _CALLS)
        return min(times[1:])

    a, b = (torch.ones(numbers, device=device) for _ in range(2))
    c, d = (torch.ones(side, side, device=device) for _ in range(2))
    out, small = torch.empty_like(c), torch.ones(8, device=device)
    flops = 2 * side**3 / seconds(lambda: torch.mm(c, d, out=out))
    return Machine(
        name=name,
        bandwidth=3 * a.nbytes / seconds(lambda: a.add_(b, alpha=0.5)),
        matmul_flops=flops,
        conv_flops=((1, flops),),
        operation_seconds=seconds(lambda: small.add_(1.0)),
        memory_bytes=memory_bytes,
    )
