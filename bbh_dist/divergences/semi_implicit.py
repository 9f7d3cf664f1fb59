"""The semi-implicit bound on KL(q || p) for w = G(z) + sigma * eps (Yin & Zhou 2018).

q(w) = E_z N(w; G(z), diag(sigma^2)) has a density where G(z) alone has none. With K other draws z_k,
E log[ 1/(K+1) (N(w; G(z)) + sum_k N(w; G(z_k))) ] >= E log q(w), and falls to it as K grows, so the result here is
an upper bound on the KL: training on it maximises a lower bound of the evidence.

With w_i = m_i + sigma eps_i the bound splits, the first part in closed form:

    KL_i = KL(N(m_i, sigma^2) || p) + log 1/(K+1) sum_k exp(-a_ik),
    a_ik = sum_t eps_it . (m_it - m_kt) / sigma_t + |m_it - m_kt|^2 / (2 sigma_t^2),     a_ii = 0,

so the second part lies between -log(K+1), where the conditionals are far apart, and about 0, where they agree.
Legend: S weight samples, M >= S conditionals, D weights, t weight tensors.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbh_dist.divergences.gaussian import spread


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def semi_implicit_kl(
    means: Sequence[Tensor],
    deviations: Sequence[Tensor],
    log_stddevs: Sequence[Tensor] | Tensor,
    prior_stddev: float,
    inner_samples: int,
    whole: Callable[[Tensor], Tensor] = _itself,
) -> Tensor:
    """Upper bound on KL(q || N(0, prior_stddev^2 I)) in nats, mean over the S samples, not divided by data.

    Shapes: `means` a list of (M, D_t) whose first S belong to the samples and whose others serve as inner draws only;
    `deviations`, eps, a list of (S, D_t); `log_stddevs` for each tensor one number, () or, as a tensor of all, (T,), or
    one for each weight, (D_t,). Each sample is bounded by its own conditional and
    `inner_samples` = K others: the following ones cyclically while K < S, else all S and the first K - S + 1 others.
    Where the lists hold a shard of the weights, `whole` sums a tensor over all of them.

    Raises:
        ValueError: there are not enough means for `inner_samples`.
    """
    count = deviations[0].shape[0]
    conditionals = max(count, inner_samples + 1)
    if means[0].shape[0] < conditionals:
        raise ValueError(f"{inner_samples} inner samples need {conditionals} means, got {means[0].shape[0]}")
    cross_TSM, gram_TMM, square_S, unit_T = _products(means, deviations, log_stddevs)
    sizes = [mean_MD.shape[1] for mean_MD in means]
    kl_S = _sum_of_spreads(sizes, log_stddevs, prior_stddev) + square_S / (2 * prior_stddev**2)
    gap_SM = _gaps(cross_TSM[:, :, :conditionals], gram_TMM[:, :conditionals, :conditionals], unit_T)
    sums = whole(torch.cat([kl_S[:, None], gap_SM], dim=1))
    kl_S, gap_SM = sums[:, 0], sums[:, 1:]
    used = _used(count, conditionals, inner_samples, kl_S.device)
    mixture_S = torch.logsumexp((-gap_SM).masked_fill(~used, -math.inf), dim=1) - math.log(inner_samples + 1)
    return (kl_S + mixture_S).mean()


def _products(
    means: Sequence[Tensor], deviations: Sequence[Tensor], log_stddevs: Sequence[Tensor] | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_Grams`, but squared norms of the samples' means (S,) over all tensors; and what is to be divided by.

    That is a log sigma (T,) for each tensor, 0 where its weights have their own: there it is done.
    """
    count = len(deviations[0])
    own = [log_stddev.dim() > 0 for log_stddev in log_stddevs]
    scaled = [
        mean_MD * torch.exp(-log_stddev) if has else mean_MD
        for mean_MD, log_stddev, has in zip(means, log_stddevs, own, strict=True)
    ]
    cross_TSM, gram_TMM, square_TM = _Grams.apply(*scaled, *deviations)
    if not any(own):
        return cross_TSM, gram_TMM, square_TM[:, :count].sum(0), _stacked(log_stddevs)
    zero = means[0].new_zeros(())
    squares = [
        mean_MD[:count].square().sum(1) if has else square_M[:count]
        for mean_MD, square_M, has in zip(means, square_TM, own, strict=True)
    ]
    units = [zero if has else log_stddev for log_stddev, has in zip(log_stddevs, own, strict=True)]
    return cross_TSM, gram_TMM, torch.stack(squares).sum(0), torch.stack(units)


def _sum_of_spreads(sizes: Sequence[int], log_stddevs: Sequence[Tensor] | Tensor, prior_stddev: float) -> Tensor:
    """() of all weights' KL in nats, but for the squares of their means."""
    if any(log_stddev.dim() for log_stddev in log_stddevs):
        parts = zip(sizes, log_stddevs, strict=True)
        return torch.stack([spread(one, prior_stddev).expand(size).sum() for size, one in parts]).sum()
    spread_T = spread(_stacked(log_stddevs), prior_stddev)
    return (spread_T * _constant(tuple(sizes), spread_T.dtype, spread_T.device)).sum()


@cache
def _constant(numbers: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Made once: a GPU's host waits for a copy."""
    return torch.tensor(numbers, dtype=dtype, device=device)


def _stacked(numbers: Sequence[Tensor] | Tensor) -> Tensor:
    return numbers if isinstance(numbers, Tensor) else torch.stack(list(numbers))


class _Grams(torch.autograd.Function):
    """Of T tensors eps (S, D_t) times centred means (M, D_t), Gram matrices of those, and squared norms of the means.

    (T, S, M), (T, M, M) and (T, M) of all means and then all eps. Centring keeps rounding small; distances don't
    depend on it. All that is S x D large is made once, and the backward pass is two small matrix products instead of a
    chain of sweeps over it.
    """

    @staticmethod
    def forward(ctx: Any, *means_and_eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means, deviations = _halves(means_and_eps)
        centres = [mean_MD.mean(0) for mean_MD in means]
        centred = [mean_MD - centre_D for mean_MD, centre_D in zip(means, centres, strict=True)]
        ctx.save_for_backward(*centred, *centres, *deviations)
        cross_TSM = torch.stack([eps_SD @ one_MD.mT for eps_SD, one_MD in zip(deviations, centred, strict=True)])
        gram_TMM = torch.stack([one_MD @ one_MD.mT for one_MD in centred])
        along_TM = torch.stack([one_MD @ centre_D for one_MD, centre_D in zip(centred, centres, strict=True)])
        square_T = torch.stack([centre_D @ centre_D for centre_D in centres])
        return cross_TSM, gram_TMM, gram_TMM.diagonal(dim1=1, dim2=2) + 2 * along_TM + square_T[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cross_TSM: Tensor, gram_TMM: Tensor, square_TM: Tensor) -> tuple[Tensor | None, ...]:
        tensors = len(ctx.saved_tensors) // 3
        centred, centres, deviations = (ctx.saved_tensors[i * tensors : (i + 1) * tensors] for i in range(3))
        mixed_TMM, twice_TM = gram_TMM + gram_TMM.mT + 2 * square_TM.diag_embed(), 2 * square_TM
        of_means = [
            (mixed_MM @ one_MD).addmm_(cross_SM.mT, eps_SD).addr_(twice_M, centre_D)
            for mixed_MM, one_MD, cross_SM, eps_SD, twice_M, centre_D in zip(
                mixed_TMM, centred, cross_TSM, deviations, twice_TM, centres, strict=True
            )
        ]
        wanted = ctx.needs_input_grad[tensors:]
        of_eps = [
            cross_SM @ one_MD if needed else None
            for cross_SM, one_MD, needed in zip(cross_TSM, centred, wanted, strict=True)
        ]
        return *of_means, *of_eps


def _halves(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    return tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :]


def _gaps(cross_TSM: Tensor, gram_TMM: Tensor, log_stddev_T: Tensor) -> Tensor:
    """(S, M) terms a_ik, summed over tensors."""
    norms_TM = gram_TMM.diagonal(dim1=1, dim2=2)
    count = cross_TSM.shape[1]
    squared_TSM = norms_TM[:, :count, None] + norms_TM[:, None] - 2 * gram_TMM[:, :count]
    linear_TSM = cross_TSM.diagonal(dim1=1, dim2=2)[:, :, None] - cross_TSM
    precision_T11 = torch.exp(-log_stddev_T)[:, None, None]
    return (linear_TSM * precision_T11 + 0.5 * squared_TSM * precision_T11.square()).sum(0)


def _used(count: int, conditionals: int, inner_samples: int, device: torch.device) -> Tensor:
    """(S, M) mask: which conditionals bound which sample."""
    if inner_samples >= count - 1:
        return torch.ones(count, conditionals, dtype=torch.bool, device=device)
    index = torch.arange(count, device=device)
    return (index[None] - index[:, None]) % count <= inner_samples
