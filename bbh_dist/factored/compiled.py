"""Products and sweeps on the CPU by `kernel.c`, whose calls release the interpreter's lock.

Rows go to threads in tasks of a fixed size, so results don't depend on the number of threads.

Legend: S weight samples, D outputs, F features.
"""

import ctypes
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from bbh_dist.factored.build import library
from bbh_dist.factored.rounding import noise_seed
from bbh_dist.factored.rules import Rule

_NAMES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float64: "f64"}
_LANES = 16
"""Features are padded to a multiple of this: at least the numbers in a vector of the kernel."""
_TASK_WEIGHTS = 1 << 21
_MOST_SAMPLES = 256
"""More would need much memory for the tasks' sums, and BLAS is as good."""

_pools: dict[int, ThreadPoolExecutor] = {}
# The threads of a pool do not exist in a forked child, which would wait for them for ever.
os.register_at_fork(after_in_child=_pools.clear)


class _Layer(ctypes.Structure):
    """`struct layer` of kernel.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "first", "second", "features", "bias", "sides")),
        *((name, ctypes.c_ssize_t) for name in ("sample_stride", "row_stride", "samples", "columns", "width")),
        ("coefficients", ctypes.c_double * 6),
        ("seed", ctypes.c_uint32),
        ("first_row", ctypes.c_uint32),
    )


def suits(samples: int, weight_DF: Tensor, state: dict[str, Tensor], rule: Rule | None = None) -> bool:
    """Whether the kernel could be built, and takes so many samples and tensors with these layouts and dtypes."""
    tensors = (weight_DF, *state.values())
    if samples > _MOST_SAMPLES or any(x.device.type != "cpu" or not x.is_contiguous() for x in tensors):
        return False
    wide = torch.float64 if weight_DF.dtype == torch.float64 else torch.float32
    narrow = () if wide == torch.float64 else (torch.bfloat16,)
    moments = rule.first_moments if rule else ()
    return (
        weight_DF.dtype in (wide, *narrow)
        and all(x.dtype == wide or (name not in moments and x.dtype in narrow) for name, x in state.items())
        and library() is not None
    )


def product(features_SF: Tensor, weight_DF: Tensor, bias_D: Tensor) -> Tensor:
    """Outputs (S, D) of the layer."""
    outputs_SD = features_SF.new_empty(features_SF.shape[0], weight_DF.shape[0])
    features, bias = _padded(features_SF), bias_D.contiguous()
    layer = _layer(weight_DF, features, outputs_SD)
    layer.bias = bias.data_ptr()
    _run(_name("forward", weight_DF), layer, weight_DF, None)
    return outputs_SD


def feature_gradient(gradients_SD: Tensor, weight_DF: Tensor) -> Tensor:
    """Gradient (S, F) for the features."""
    features = _padded(gradients_SD.new_zeros(gradients_SD.shape[0], weight_DF.shape[1]))
    layer, partial = _layer(weight_DF, features, gradients_SD), _partial(weight_DF, features)
    _run(_name("read", weight_DF), layer, weight_DF, partial)
    return partial.sum(dim=0)[:, : weight_DF.shape[1]]


def sweep(
    weight_DF: Tensor,
    state: dict[str, Tensor],
    gradients_SD: Tensor,
    features_SF: Tensor,
    rule: Rule,
    first_row: int,
    salt: int,
    with_feature_gradient: bool,
) -> Tensor | None:
    """As the reference's, which see."""
    features, coefficients = _padded(features_SF), rule.coefficients()
    layer = _layer(weight_DF, features, gradients_SD)
    layer.seed, layer.first_row = noise_seed(rule.step, salt), first_row
    layer.coefficients[: len(coefficients)] = coefficients
    second = None
    for name in rule.first_moments:
        layer.first = state[name].data_ptr()
    for name in rule.second_moments:
        second = state[name]
        layer.second = second.data_ptr()
    partial = _partial(weight_DF, features) if with_feature_gradient else None
    _run(_name(type(rule).__name__.lower(), weight_DF, second), layer, weight_DF, partial)
    return None if partial is None else partial.sum(dim=0)[:, : features_SF.shape[1]]


def _name(function: str, weight_DF: Tensor, second_DF: Tensor | None = None) -> str:
    """Name of the kernel's variant; one without second moments has the name of the wide type in their place."""
    wide = torch.float64 if weight_DF.dtype == torch.float64 else torch.float32
    return f"{function}_{_NAMES[weight_DF.dtype]}_{_NAMES[wide if second_DF is None else second_DF.dtype]}"


def _layer(weight_DF: Tensor, features_SF: Tensor, sides_SD: Tensor) -> _Layer:
    return _Layer(
        weight=weight_DF.data_ptr(),
        features=features_SF.data_ptr(),
        sides=sides_SD.data_ptr(),
        sample_stride=sides_SD.stride(0),
        row_stride=sides_SD.stride(1),
        samples=features_SF.shape[0],
        columns=weight_DF.shape[1],
        width=features_SF.shape[1],
    )


def _partial(weight_DF: Tensor, features_SF: Tensor) -> Tensor:
    """Zeros (tasks, S, width) for each task's sum, to be summed in the order of the rows."""
    return features_SF.new_zeros(_tasks(weight_DF), *features_SF.shape)


def _padded(features_SF: Tensor) -> Tensor:
    columns = features_SF.shape[1]
    return torch.nn.functional.pad(features_SF, (0, -columns % _LANES)).contiguous()


def _task_rows(weight_DF: Tensor) -> int:
    return max(64, _TASK_WEIGHTS // max(1, weight_DF.shape[1]) // 4 * 4)


def _tasks(weight_DF: Tensor) -> int:
    return -(-weight_DF.shape[0] // _task_rows(weight_DF))


def _run(function: str, layer: _Layer, weight_DF: Tensor, partial: Tensor | None) -> None:
    """Call the kernel for every task, on as many threads as torch has, each taking the next task that is left."""
    kernel = getattr(library(), function)
    rows, tasks = _task_rows(weight_DF), deque(range(_tasks(weight_DF)))
    first_sum = 0 if partial is None else partial.data_ptr()
    sum_bytes = 0 if partial is None else partial.stride(0) * partial.element_size()

    def work(_: int) -> None:
        while tasks:
            try:
                task = tasks.popleft()
            except IndexError:
                return
            sums = None if partial is None else ctypes.c_void_p(first_sum + task * sum_bytes)
            end = min((task + 1) * rows, weight_DF.shape[0])
            kernel(ctypes.byref(layer), sums, ctypes.c_size_t(task * rows), ctypes.c_size_t(end))

    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        work(0)
    else:
        list(_pool(threads).map(work, range(threads)))


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="bbh_dist-factored")
    return _pools[threads]
