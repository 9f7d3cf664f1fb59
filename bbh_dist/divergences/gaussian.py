"""KL divergences of Gaussians: the closed form, and an estimate from samples that are taken to be Gaussian.

Legend: S weight samples, D weights. All results are in nats and not divided by the number of data.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian_kl(mean_SD: Tensor, log_stddev: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(mean, stddev^2) || N(0, prior_stddev^2 I)) in nats, summed over D; (S,) for means (S, D).

    `log_stddev` is one number for all D weights, (), or one for each, (D,).
    Source: Kingma & Welling 2014, appendix B, for a general prior scale.
    """
    return gaussian_kl_of_norms(mean_SD.square().sum(1), mean_SD.shape[1], log_stddev, prior_stddev)


def gaussian_kl_of_norms(square_S: Tensor, weights: int, log_stddev: Tensor, prior_stddev: float) -> Tensor:
    """The same (S,), from the squared norms (S,) of the means."""
    ratio = torch.exp(2 * log_stddev) / prior_stddev**2
    spread = 0.5 * (ratio - 1) - (log_stddev - math.log(prior_stddev))
    spread = spread.sum() if log_stddev.dim() else weights * spread
    return spread + square_S / (2 * prior_stddev**2)


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
