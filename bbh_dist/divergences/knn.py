"""Nearest-neighbour estimates of KL(q || p) from samples of both.

Legend: S weight samples of q and as many of p, D weights. Results are in nats and not divided by the number of data.
Source: Perez-Cruz 2008, equation 14; Wang, Kulkarni & Verdu 2009; used by Pawlowski et al. 2017.

The full estimate has no pull back in high dimension: for q = N(0, s^2 I), p = N(0, I) it tends to
D/2 log((1 + s^2) / (2 s^2)), which always falls in s. It is near the truth in few dimensions only.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_TINY = 1e-8
"""Added under the root and inside the logarithm, as the authors do."""


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def squared_distances(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """(S_a, S_b) squared Euclidean distances over all weights, of lists of (S_a, D_t) and (S_b, D_t)."""
    # Not by matrix products: near neighbours far from the origin would lose their distance to rounding.
    parts = [torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() for x, y in zip(a, b, strict=True)]
    return torch.stack(parts).sum(0)


def knn_kl(
    posterior: Sequence[Tensor],
    prior: Sequence[Tensor],
    weights: int | None = None,
    whole: Callable[[Tensor], Tensor] = _itself,
) -> Tensor:
    """D mean_i log(min_j |w_i - v_j| / min_{j != i} |w_i - w_j|) + log(S_p / (S_q - 1)) in nats.

    Shapes: `posterior` a list of (S_q, D_t), `prior` of (S_p, D_t); result (). Where the lists hold a shard of the D
    weights, `weights` is D and `whole` sums a tensor over all shards.

    Raises:
        ValueError: fewer than 2 samples of the posterior.
    """
    count, others = posterior[0].shape[0], prior[0].shape[0]
    _check(count)
    weights = sum(part.shape[1] for part in posterior) if weights is None else weights
    squared = whole(torch.cat([squared_distances(posterior, prior), squared_distances(posterior, posterior)], dim=1))
    to_prior, own = squared[:, :others].amin(1), squared[:, others:]
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
