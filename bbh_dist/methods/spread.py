"""How wide a posterior over weights is, and what makes it so: the generator or sigma.

Legend: S weight samples, D weights.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from bbh_dist.networks.layers import TensorSpec
from bbh_dist.sharding import Shards


def variances(draws: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """For each tensor the unbiased variance over all samples (D_t,), of draws that are lists of (S, D_t) each.

    One draw is held at a time. Source: Chan, Golub & LeVeque 1979, equation 2.1.
    """
    count, means, sums = 0, [], []
    for draw in draws:
        more = len(draw[0])
        new = [_moments(part_SD) for part_SD in draw]
        if not count:
            means, sums = [mean for _, mean in new], [variance * more for variance, _ in new]
        else:
            for mean, total, (variance, new_mean) in zip(means, sums, new, strict=True):
                shift = new_mean - mean
                total += variance * more + shift.square() * (count * more / (count + more))
                mean += shift * (more / (count + more))
        count += more
    return [total / (count - 1) for total in sums]


def _moments(part_SD: Tensor) -> tuple[Tensor, Tensor]:
    """Variance about the own mean, and mean, (D,); over so few rows 10 times as fast as `torch.var_mean`."""
    mean_D = part_SD.mean(0)
    return (part_SD - mean_D).square_().mean(0), mean_D


def spread_measures(
    of_generator: Sequence[Tensor],
    log_stddevs: Sequence[Tensor] | None,
    tensors: Sequence[TensorSpec],
    prior_stddev: float,
    shards: Shards,
) -> dict[str, float]:
    """Means over the D weights of all shards; without sigma only the first.

    `posterior/relative_variance`: variance of the weight, in units of the larger one of the prior's and of the scale at
    which it starts; at the start about 1 at most.
    `posterior/generator_variance_share`: Var G(z) / (Var G(z) + sigma^2), from 0 to 1.
    `posterior/sigma_over_scale`: sigma in units of the scale at which the tensor's weights start.
    """
    sums = torch.zeros(4, dtype=torch.float64, device=of_generator[0].device)
    zero = torch.zeros((), device=sums.device)
    stddevs = [zero] * len(tensors) if log_stddevs is None else [log_stddev.exp() for log_stddev in log_stddevs]
    for variance_D, stddev, tensor in zip(of_generator, stddevs, tensors, strict=True):
        whole_D, ones_D = variance_D + stddev**2, torch.ones_like(variance_D)
        relative_D = whole_D / max(tensor.scale, prior_stddev) ** 2
        terms = [ones_D, relative_D, variance_D / whole_D, ones_D * (stddev / tensor.scale)]
        sums += torch.stack(terms).sum(1, dtype=torch.float64)
    count, *totals = shards.group.sum(sums, "metrics").tolist()
    names = ("relative_variance", "generator_variance_share", "sigma_over_scale")[: 1 if log_stddevs is None else 3]
    return {f"posterior/{name}": total / count for name, total in zip(names, totals, strict=False)}
