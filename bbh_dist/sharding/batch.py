"""Sums over the workers that hold the parts of one batch under the same weight samples."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bbh_dist.sharding.parts import SampleShare
from bbh_dist.sharding.workers import Workers


def batch_total(workers: Workers, samples: SampleShare) -> Callable[[Tensor], Tensor] | None:
    """The differentiable sum over the parts of a batch that the same weight samples see; None where there is one part.

    All workers have to ask for the same sums in the same order.
    """
    return partial(_SumOverBatch.apply, workers, samples) if workers.size > samples.groups else None


class _SumOverBatch(torch.autograd.Function):
    """Every part's loss depends on the sum, so the gradient of a part is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, workers: Workers, samples: SampleShare, tensor: Tensor) -> Tensor:
        ctx.workers, ctx.samples = workers, samples
        return _summed(workers, samples, tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _summed(ctx.workers, ctx.samples, gradient)


def _summed(workers: Workers, samples: SampleShare, tensor: Tensor) -> Tensor:
    # One group of all workers: those with other samples have a row of their own.
    rows = tensor.new_zeros(samples.groups, *tensor.shape)
    rows[samples.index] = tensor.detach()
    return workers.sum(rows, "statistics")[samples.index]
