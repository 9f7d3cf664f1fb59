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
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbh_dist.divergences.gaussian import spread


def semi_implicit_kl(
    means: Sequence[Tensor],
    deviations: Sequence[Tensor],
    log_stddevs: Sequence[Tensor] | Tensor,
    prior_stddev: float,
    inner_samples: int,
) -> Tensor:
    """Upper bound on KL(q || N(0, prior_stddev^2 I)) in nats, mean over the S samples, not divided by data.

    Shapes: `means` a list of (M, D_t) whose first S belong to the samples and whose others serve as inner draws only;
    `deviations`, eps, a list of (S, D_t); `log_stddevs` for each tensor one number, () or, as a tensor of all, (T,), or
    one for each weight, (D_t,). Each sample is bounded by its own conditional and
    `inner_samples` = K others: the following ones cyclically while K < S, else all S and the first K - S + 1 others.

    Raises:
        ValueError: there are not enough means for `inner_samples`.
    """
    return semi_implicit_bound(
        semi_implicit_terms(means, deviations, log_stddevs, prior_stddev, inner_samples), inner_samples
    )


def semi_implicit_terms(
    means: Sequence[Tensor],
    deviations: Sequence[Tensor],
    log_stddevs: Sequence[Tensor] | Tensor,
    prior_stddev: float,
    inner_samples: int,
) -> Tensor:
    """What the bound is made of: the closed part of each KL_i and its a_ik, to which those of shards add up.

    Arguments and errors as `semi_implicit_kl`; (S, 1 + max(S, K + 1)), as further means serve nothing.
    """
    count = deviations[0].shape[0]
    conditionals = max(count, inner_samples + 1)
    if means[0].shape[0] < conditionals:
        raise ValueError(f"{inner_samples} inner samples need {conditionals} means, got {means[0].shape[0]}")
    cross_TSM, gram_TMM, square_S, unit_T = _products(means, deviations, log_stddevs)
    sizes = [mean_MD.shape[1] for mean_MD in means]
    kl_S = _sum_of_spreads(sizes, log_stddevs, prior_stddev) + square_S / (2 * prior_stddev**2)
    gap_SM = _gaps(cross_TSM[:, :, :conditionals], gram_TMM[:, :conditionals, :conditionals], unit_T)
    return torch.cat([kl_S[:, None], gap_SM], dim=1)


def semi_implicit_bound(terms: Tensor, inner_samples: int) -> Tensor:
    """The bound in nats, (), of its `semi_implicit_terms` over all weights."""
    kl_S, gap_SM = terms[:, 0], terms[:, 1:]
    count, conditionals = gap_SM.shape
    used = _used(count, conditionals, inner_samples, kl_S.device)
    mixture_S = torch.logsumexp((-gap_SM).masked_fill(~used, -math.inf), dim=1) - math.log(inner_samples + 1)
    return (kl_S + mixture_S).mean()


def _products(
    means: Sequence[Tensor], deviations: Sequence[Tensor], log_stddevs: Sequence[Tensor] | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_Grams`, but squared norms of the samples' means (S,) over all tensors; and what is to be divided by.

    That is a log sigma (T,) for each tensor, 0 where its weights have their own: there it is done.
    """
    of_tensors = [
        _of_one(mean_MD, eps_SD, log_stddev)
        for mean_MD, eps_SD, log_stddev in zip(means, deviations, log_stddevs, strict=True)
    ]
    cross_TSM, gram_TMM, square_TM, unit_T = (torch.stack(list(parts)) for parts in zip(*of_tensors, strict=True))
    return cross_TSM, gram_TMM, square_TM[:, : len(deviations[0])].sum(0), unit_T


def _of_one(mean_MD: Tensor, eps_SD: Tensor, log_stddev: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not log_stddev.dim():
        return *_Grams.apply(mean_MD, eps_SD), log_stddev
    cross_SM, gram_MM, _ = _Grams.apply(mean_MD * torch.exp(-log_stddev), eps_SD)
    return cross_SM, gram_MM, mean_MD.square().sum(1), mean_MD.new_zeros(())


def _sum_of_spreads(sizes: Sequence[int], log_stddevs: Sequence[Tensor] | Tensor, prior_stddev: float) -> Tensor:
    """() of all weights' KL in nats, but for the squares of their means."""
    if any(log_stddev.dim() for log_stddev in log_stddevs):
        spreads = [spread(log_stddev, prior_stddev) for log_stddev in log_stddevs]
    else:
        spreads = list(spread(torch.stack(list(log_stddevs)), prior_stddev))
    return torch.stack([one.sum() if one.dim() else size * one for size, one in zip(sizes, spreads, strict=True)]).sum()


class _Grams(torch.autograd.Function):
    """eps (S, D) times centred means (M, D), the Gram matrix of the centred means, and squared norms of the means.

    Centring keeps rounding small; distances don't depend on it. All that is S x D large is made once, and the backward
    pass is two small matrix products instead of a chain of sweeps over it. Of one tensor: of all at once, what is as
    large as the weights would be held for all of them.
    """

    @staticmethod
    def forward(ctx: Any, mean_MD: Tensor, eps_SD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centre_D = mean_MD.mean(0)
        centred_MD = mean_MD - centre_D
        gram_MM = centred_MD @ centred_MD.mT
        ctx.save_for_backward(centred_MD, centre_D, eps_SD)
        square_M = gram_MM.diagonal() + 2 * (centred_MD @ centre_D) + centre_D @ centre_D
        return eps_SD @ centred_MD.mT, gram_MM, square_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cross_SM: Tensor, gram_MM: Tensor, square_M: Tensor) -> tuple[Tensor, Tensor | None]:
        centred_MD, centre_D, eps_SD = ctx.saved_tensors
        result_MD = (gram_MM + gram_MM.mT + 2 * square_M.diag()) @ centred_MD
        result_MD.addmm_(cross_SM.mT, eps_SD).addr_(2 * square_M, centre_D)
        return result_MD, cross_SM @ centred_MD if ctx.needs_input_grad[1] else None


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
