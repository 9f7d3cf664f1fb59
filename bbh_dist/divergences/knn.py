"""Nearest-neighbour estimates of KL(q || p) from samples of both.

Legend: S weight samples of q and as many of p, D weights. Results are in nats and not divided by the number of data.
Source: Perez-Cruz 2008, equation 14; Wang, Kulkarni & Verdu 2009; used by Pawlowski et al. 2017.

The full estimate has no pull back in high dimension: for q = N(0, s^2 I), p = N(0, I) it tends to
D/2 log((1 + s^2) / (2 s^2)), which always falls in s. It is near the truth in few dimensions only.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_TINY = 1e-8
"""Added under the root and inside the logarithm, as the authors do."""
_CACHED_COLUMNS, _COLUMNS = 1 << 14, 1 << 22
"""Weights whose distances are computed together, on a CPU and elsewhere."""


def squared_distances(posterior: Sequence[Tensor], prior: Sequence[Tensor]) -> Tensor:
    """(S_q, S_q + S_p) squared Euclidean distances over all weights, of posterior samples to each other and to prior's.

    Shapes: lists of (S_q, D_t) and (S_p, D_t). Only the posterior's samples have a gradient.
    """
    squared: Tensor = _SquaredDistances.apply(len(posterior), *posterior, *prior)
    return squared


class _SquaredDistances(torch.autograd.Function):
    """Distances of differences, not of matrix products: near neighbours that are far from the origin keep theirs.

    `pdist` is ten times as fast as `cdist` on rows this long, for all that pairs of prior samples are computed in vain.
    The gradient is one small matrix, whose rows add up to 0, times all samples: so they may be centred first, which
    keeps rounding small.
    """

    @staticmethod
    def forward(ctx: Any, tensors: int, *samples: Tensor) -> Tensor:
        ctx.tensors, ctx.count = tensors, len(samples[0])
        ctx.save_for_backward(*samples)
        total = ctx.count + len(samples[tensors])
        pairs = samples[0].new_zeros(total * (total - 1) // 2)
        for w_SD, v_SD in zip(samples[:tensors], samples[tensors:], strict=True):
            for w, v in _blocks(w_SD, v_SD):
                pairs += torch.pdist(torch.cat([w, v])).square()
        squared = pairs.new_zeros(total, total)
        first, second = torch.triu_indices(total, total, 1, device=pairs.device)
        squared[first, second] = pairs
        return (squared + squared.mT)[: ctx.count]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        own, others = gradient[:, : ctx.count], gradient[:, ctx.count :]
        own = own + own.mT
        of_posterior = 2 * ((own.sum(1) + others.sum(1)).diag() - own)
        samples, results = ctx.saved_tensors, []
        for w_SD, v_SD in zip(samples[: ctx.tensors], samples[ctx.tensors :], strict=True):
            results.append(torch.empty_like(w_SD))
            for w, v, result in _blocks(w_SD, v_SD, results[-1]):
                centre = w.mean(0)
                torch.addmm(of_posterior @ (w - centre), others, v - centre, alpha=-2, out=result)
        return None, *results, *(None for _ in results)


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Columns of tensors (_, D) by as many as stay in a cache, without copies."""
    columns = _CACHED_COLUMNS if tensors[0].device.type == "cpu" else _COLUMNS
    return zip(*(tensor.split(columns, dim=1) for tensor in tensors), strict=True)


def knn_kl(posterior: Sequence[Tensor], prior: Sequence[Tensor]) -> Tensor:
    """D mean_i log(min_j |w_i - v_j| / min_{j != i} |w_i - w_j|) + log(S_p / (S_q - 1)) in nats.

    Shapes: `posterior` a list of (S_q, D_t), `prior` of (S_p, D_t); result ().

    Raises:
        ValueError: fewer than 2 samples of the posterior.
    """
    return knn_kl_of_distances(squared_distances(posterior, prior), sum(part.shape[1] for part in posterior))


def knn_kl_of_distances(squared: Tensor, weights: int) -> Tensor:
    """`knn_kl` of `squared_distances` (S_q, S_q + S_p) over all D `weights`, to which those of shards add up.

    Raises:
        ValueError: fewer than 2 samples of the posterior.
    """
    count, others = squared.shape[0], squared.shape[1] - squared.shape[0]
    _check(count)
    own, to_prior = squared[:, :count], squared[:, count:].amin(1)
    to_posterior = own.masked_fill(torch.eye(count, dtype=torch.bool, device=own.device), math.inf).amin(1)
    ratio = (_root(to_prior) / _root(to_posterior) + _TINY).log()
    return weights * ratio.mean() + math.log(others / (count - 1))


def knn_marginal_kl(posterior: Sequence[Tensor], prior: Sequence[Tensor]) -> Tensor:
    """The same estimate in one dimension for every weight, summed over weights, in nats.

    Shapes: as `knn_kl`. What q has of correlations between weights is not seen. Shards of the weights add up.
    """
    count, others = posterior[0].shape[0], prior[0].shape[0]
    _check(count)
    total = posterior[0].new_zeros(())
    for w_SD, v_SD in zip(posterior, prior, strict=True):
        to_prior = _nearest(w_SD, v_SD, skip_self=False)
        to_posterior = _nearest(w_SD, w_SD, skip_self=True)
        ratio = (_root(to_prior) / _root(to_posterior) + _TINY).log()
        total = total + ratio.mean(0).sum() + w_SD.shape[1] * math.log(others / (count - 1))
    return total


def _nearest(w_SD: Tensor, v_SD: Tensor, skip_self: bool) -> Tensor:
    """(S, D) squared distance of every w to the nearest v in each dimension.

    Memory: a few (S, D); gradients keep 6 S of them.
    """
    nearest = torch.full_like(w_SD, math.inf)
    for shift in range(1 if skip_self else 0, v_SD.shape[0]):
        other = v_SD.roll(-shift, 0) if v_SD.shape[0] == w_SD.shape[0] else v_SD[shift]
        nearest = torch.minimum(nearest, (w_SD - other).square())
    return nearest


def _root(squared: Tensor) -> Tensor:
    return (squared + _TINY).sqrt()


def _check(count: int) -> None:
    if count < 2:
        raise ValueError(f"a nearest-neighbour divergence needs at least 2 weight samples, got {count}")
