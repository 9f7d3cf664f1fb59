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
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bbh_dist.divergences.gaussian import gaussian_kl_of_norms


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
    kl_S = means[0].new_zeros(count)
    gap_SM = means[0].new_zeros(count, conditionals)
    for mean_MD, eps_SD, log_stddev in zip(means, deviations, log_stddevs, strict=True):
        cross_SM, gram_MM, square_M, unit = _products(mean_MD, eps_SD, log_stddev)
        kl_S = kl_S + gaussian_kl_of_norms(square_M[:count], mean_MD.shape[1], log_stddev, prior_stddev)
        gap_SM = gap_SM + _gaps(cross_SM[:, :conditionals], gram_MM[:conditionals, :conditionals], unit)
    sums = whole(torch.cat([kl_S[:, None], gap_SM], dim=1))
    kl_S, gap_SM = sums[:, 0], sums[:, 1:]
    used = _used(count, conditionals, inner_samples, kl_S.device)
    mixture_S = torch.logsumexp((-gap_SM).masked_fill(~used, -math.inf), dim=1) - math.log(inner_samples + 1)
    return (kl_S + mixture_S).mean()


def _products(mean_MD: Tensor, eps_SD: Tensor, log_stddev: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `_Grams`, and the log of the sigma that is still to be divided by: where weights have their own it is done."""
    if not log_stddev.dim():
        cross_SM, gram_MM, square_M = _Grams.apply(mean_MD, eps_SD)
        return cross_SM, gram_MM, square_M, log_stddev
    cross_SM, gram_MM, _ = _Grams.apply(mean_MD * torch.exp(-log_stddev), eps_SD)
    return cross_SM, gram_MM, mean_MD.square().sum(1), mean_MD.new_zeros(())


class _Grams(torch.autograd.Function):
    """eps (S, D) times centred means (M, D), the Gram matrix of the centred means, and squared norms of the means.

    Centring keeps rounding small; distances don't depend on it. All that is S x D large is made once, and the backward
    pass is two small matrix products instead of a chain of sweeps over it.
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


def _gaps(cross_SM: Tensor, gram_MM: Tensor, log_stddev: Tensor) -> Tensor:
    """(S, M) terms a_ik of one tensor."""
    norms_M = gram_MM.diagonal()
    count = len(cross_SM)
    squared_SM = norms_M[:count, None] + norms_M - 2 * gram_MM[:count]
    linear_SM = cross_SM.diagonal()[:, None] - cross_SM
    return linear_SM * torch.exp(-log_stddev) + 0.5 * squared_SM * torch.exp(-2 * log_stddev)


def _used(count: int, conditionals: int, inner_samples: int, device: torch.device) -> Tensor:
    """(S, M) mask: which conditionals bound which sample."""
    if inner_samples >= count - 1:
        return torch.ones(count, conditionals, dtype=torch.bool, device=device)
    index = torch.arange(count, device=device)
    return (index[None] - index[:, None]) % count <= inner_samples
