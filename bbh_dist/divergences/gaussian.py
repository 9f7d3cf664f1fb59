"""KL divergences of Gaussians: the closed form, and an estimate from samples that are taken to be Gaussian.

Legend: S weight samples, D weights. All results are in nats and not divided by the number of data.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def gaussian_kl(mean_SD: Tensor, log_stddev: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(mean, stddev^2) || N(0, prior_stddev^2 I)) in nats, summed over D; (S,) for means (S, D).

    `log_stddev` is one number for all D weights, (), or one for each, (D,).
    Source: Kingma & Welling 2014, appendix B, for a general prior scale.
    """
    spreads = spread(log_stddev, prior_stddev).expand(mean_SD.shape[1])
    return spreads.sum() + mean_SD.square().sum(1) / (2 * prior_stddev**2)


def spread(log_stddev: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(0, stddev^2) || N(0, prior_stddev^2)) in nats, for each element."""
    return 0.5 * (torch.exp(2 * log_stddev) / prior_stddev**2 - 1) - (log_stddev - math.log(prior_stddev))


def factorised_gaussian_kl(mean_D: Tensor, log_stddev_D: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(mean, diag(stddev^2)) || N(0, prior_stddev^2 I)) in nats, summed over D; shape ().

    Source: Kingma & Welling 2014, appendix B, for a general prior scale.
    """
    return _factorised_gaussian_kl(mean_D, log_stddev_D, log_stddev_D.exp(), prior_stddev)


def gaussian_samples(
    mean_D: Tensor, log_stddev_D: Tensor, eps_SD: Tensor, prior_stddev: float
) -> tuple[Tensor, Tensor]:
    """Samples mean + stddev * eps (S, D) and the same KL, in few passes over the weights.

    The gradients of both meet on the way back, where autograd would make a vector for each operation.
    """
    samples, kl = _GaussianSamples.apply(mean_D, log_stddev_D, eps_SD, prior_stddev)
    return samples, kl


def _factorised_gaussian_kl(mean_D: Tensor, log_stddev_D: Tensor, stddev_D: Tensor, prior_stddev: float) -> Tensor:
    squares = torch.dot(mean_D, mean_D) + torch.dot(stddev_D, stddev_D)
    constant = mean_D.numel() * (math.log(prior_stddev) - 0.5)
    return squares / (2 * prior_stddev**2) - log_stddev_D.sum() + constant


class _GaussianSamples(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_stddev: Tensor, eps: Tensor, prior_stddev: float) -> tuple[Tensor, Tensor]:
        stddev = log_stddev.exp()
        ctx.save_for_backward(mean, stddev, eps)
        ctx.prior_stddev = prior_stddev
        kl = _factorised_gaussian_kl(mean, log_stddev, stddev, prior_stddev)
        return torch.addcmul(mean, stddev, eps), kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_samples: Tensor, of_kl: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """d KL / d mean = mean / prior_stddev^2, d KL / d log_stddev = stddev^2 / prior_stddev^2 - 1."""
        mean, stddev, eps = ctx.saved_tensors
        pull = of_kl / ctx.prior_stddev**2
        of_mean = torch.addcmul(_sum_over_samples(of_samples), mean, pull)
        of_log_stddev = _sum_over_samples(of_samples * eps)
        of_log_stddev.addcmul_(stddev, pull).mul_(stddev).sub_(of_kl)
        return of_mean, of_log_stddev, None, None


def _sum_over_samples(values_SD: Tensor) -> Tensor:
    return values_SD.squeeze(0) if len(values_SD) == 1 else values_SD.sum(0)


def gaussian_moment_kl(samples: Sequence[Tensor], prior_stddev: float) -> Tensor:
    """KL(q || N(0, prior_stddev^2 I)) in nats from samples of q, a list of (S, D_t), were q factorised Gaussian.

    Unbiased then: the plug-in of sample mean and variance is corrected by the bias of the squared mean, variance / S,
    and of the log variance, digamma(v / 2) - log(v / 2) with v = S - 1 degrees of freedom (chi-squared).
    It ignores what q has of correlations, so it is a lower bound in expectation only for Gaussian q.
    It is a sum over weights: shards of them add up.

    Raises:
        ValueError: fewer than 2 samples.
    """
    count = samples[0].shape[0]
    if count < 2:
        raise ValueError(f"the gaussian divergence needs at least 2 weight samples, got {count}")
    freedom = torch.tensor((count - 1) / 2, dtype=torch.float64)
    log_bias = float(torch.digamma(freedom) - torch.log(freedom))
    total = samples[0].new_zeros(())
    for part_SD in samples:
        mean = part_SD.mean(0)
        variance = (part_SD - mean).square().sum(0) / (count - 1)  # `torch.var` takes 10 times as long on few rows
        # A weight that does not vary has an infinite divergence; the floor keeps its gradient finite.
        ratio = (variance / prior_stddev**2).clamp_min(torch.finfo(part_SD.dtype).tiny)
        square = (mean.square() - variance / count) / prior_stddev**2
        total = total + 0.5 * (ratio + square - 1 - ratio.log() + log_bias).sum()
    return total
