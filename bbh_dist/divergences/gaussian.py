"""KL divergences of Gaussians: the closed form, and an estimate from samples that are taken to be Gaussian.

Legend: S weight samples, D weights. All results are in nats and not divided by the number of data.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def gaussian_kl(mean_SD: Tensor, log_stddev: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(mean, stddev^2 I) || N(0, prior_stddev^2 I)) in nats, summed over D; (S,) for means (S, D).

    `log_stddev` is one number for all D weights.
    Source: Kingma & Welling 2014, appendix B, for a general prior scale.
    """
    return gaussian_kl_of_norms(mean_SD.square().sum(1), mean_SD.shape[1], log_stddev, prior_stddev)


def gaussian_kl_of_norms(square_S: Tensor, weights: int, log_stddev: Tensor, prior_stddev: float) -> Tensor:
    """The same (S,), from the squared norms (S,) of the means."""
    ratio = torch.exp(2 * log_stddev) / prior_stddev**2
    spread = 0.5 * weights * (ratio - 1) - weights * (log_stddev - math.log(prior_stddev))
    return spread + square_S / (2 * prior_stddev**2)


def factorised_gaussian_kl(mean_D: Tensor, log_stddev_D: Tensor, prior_stddev: float) -> Tensor:
    """KL(N(mean, diag(stddev^2)) || N(0, prior_stddev^2 I)) in nats, summed over D; shape ().

    Source: Kingma & Welling 2014, appendix B, for a general prior scale.
    """
    squares = mean_D.square().sum() + torch.exp(2 * log_stddev_D).sum()
    constant = mean_D.numel() * (math.log(prior_stddev) - 0.5)
    return squares / (2 * prior_stddev**2) - log_stddev_D.sum() + constant


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
        if not part_SD.shape[1]:
            continue  # a shard may hold nothing of a tensor; a variance of nothing warns
        variance, mean = torch.var_mean(part_SD, dim=0)
        # A weight that does not vary has an infinite divergence; the floor keeps its gradient finite.
        ratio = (variance / prior_stddev**2).clamp_min(torch.finfo(part_SD.dtype).tiny)
        square = (mean.square() - variance / count) / prior_stddev**2
        total = total + 0.5 * (ratio + square - 1 - ratio.log() + log_bias).sum()
    return total
