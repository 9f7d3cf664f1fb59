"""Linear layers in float32, by oneDNN on processors on which torch's usual library, MKL, is slow.

MKL leaves AVX-512 out where a processor is not Intel's, and then takes twice as long: for 650 x 512 times 512 x 3316 on
one core of an AMD EPYC (Turin) 22 ms, oneDNN 11 ms, in the same float32. torch has oneDNN built in, but chooses it for
products only where it may round to bfloat16. The operator below is the one that torch's compiler takes for them.
`torch.backends.mkldnn.flags(enabled=False)` switches it off. autograd has derivatives of any order, but no forward-mode
ones, and torch.func does not apply.

Legend: S weight samples, B batch, I inputs, O outputs.
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_FEWEST_PRODUCTS = 1 << 20
"""Below so many multiplications the call itself takes longer than is won."""
_CPUINFO = Path("/proc/cpuinfo")


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """(..., O) of inputs (..., I): `torch.nn.functional.linear`, but for rounding."""
    if not _suits(x, weight_OI, bias_O):
        return F.linear(x, weight_OI, bias_O)
    bias_O = None if bias_O is None else bias_O.expand(len(weight_OI))
    return _Linear.apply(x.flatten(0, -2), weight_OI, bias_O).unflatten(0, x.shape[:-1])


def sampled_linear(x: Tensor, weight_SOI: Tensor, bias_SO: Tensor) -> Tensor:
    """(S, B, O) of inputs (S or 1, B, I), each weight sample's own linear layer."""
    samples = len(weight_SOI)
    x, bias_SO = x.expand(samples, -1, -1), bias_SO.expand(samples, -1)
    if not samples or not _suits(x[0], weight_SOI[0], bias_SO[0]):
        return torch.baddbmm(bias_SO[:, None], x, weight_SOI.mT)
    # Unbound, not indexed: the gradient of an index is as large as all samples together.
    parts = zip(x.unbind(), weight_SOI.unbind(), bias_SO.unbind(), strict=True)
    return torch.stack([_Linear.apply(*part) for part in parts])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_BI, weight_OI)
        if bias_O is not None:
            bias_O = bias_O.contiguous()  # other strides are not looked at, and memory beside it is read
        return torch.ops.mkldnn._linear_pointwise(x_BI, weight_OI, bias_O, "none", [], "")

    @staticmethod
    def backward(ctx: Any, gradient_BO: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x_BI, weight_OI = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _Linear.apply(gradient_BO, weight_OI.mT, None) if of_x else None,
            _Linear.apply(gradient_BO.mT, x_BI.mT, None) if of_weight else None,
            gradient_BO.sum(0) if of_bias else None,
        )


def _suits(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> bool:
    tensors = (x, weight_OI) if bias_O is None else (x, weight_OI, bias_O)
    return (
        all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and x.dim() > 1
        and x.shape[-1:] == weight_OI.shape[1:]
        and x.numel() * len(weight_OI) >= _FEWEST_PRODUCTS
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and _has_slow_mkl()
    )


@cache
def _has_slow_mkl() -> bool:
    """By what the processor is, not by time, so that a machine always rounds alike."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _CPUINFO.exists()
        and "AuthenticAMD" in _CPUINFO.read_text()
    )
