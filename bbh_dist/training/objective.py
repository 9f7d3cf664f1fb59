"""The objective: mean negative log-likelihood + kl_weight * anneal * KL / N. The one place that divides by N."""

import math
from typing import Any, NamedTuple

from torch import Tensor

from bbh_dist.config import Anneal, BbhMethod, MapMethod
from bbh_dist.methods import Method
from bbh_dist.training.workers import Workers


class Loss(NamedTuple):
    """A worker's part of the objective: parts summed over workers are the whole."""

    part: Tensor
    """What to differentiate; gradients are summed over workers."""
    nll_sum: Tensor
    """Negative log-likelihood summed over this worker's examples, nats."""
    kl: Tensor
    """The divergence, nats, the same on every worker."""


def annealed(kl_weight: float, anneal: Anneal, epoch: float) -> float:
    """KL weight at a time in epochs: 0 until `start`, then linear to `kl_weight` over `epochs`."""
    if epoch < anneal.start:
        return 0.0
    if anneal.epochs == 0:
        return kl_weight
    return kl_weight * min(1.0, (epoch - anneal.start) / anneal.epochs)


def negative_log_likelihood(logits_SBC: Tensor, labels_B: Tensor, form: str) -> Tensor:
    """(B,) in nats: mean over samples of -log p (`mean_log`), or -log of the mean p (`log_mean`)."""
    log_p_SB = logits_SBC.log_softmax(-1).gather(-1, labels_B.expand(len(logits_SBC), -1)[..., None])[..., 0]
    if form == "mean_log":
        return -log_p_SB.mean(0)
    return -(log_p_SB.logsumexp(0) - math.log(len(log_p_SB)))


def objective(
    method: Method,
    config: MapMethod | BbhMethod,
    inputs: Tensor,
    labels: Tensor,
    drawn: Any,
    *,
    batch: int,
    examples: int,
    kl_weight: float,
    workers: Workers,
) -> Loss:
    """This worker's part of the objective for its share (inputs, labels) of a batch of `batch` examples.

    The likelihood's share is its sum over the batch's size, the KL's share 1 / workers: all draw the same weights, so
    the objective and its gradient are the same for any number of workers. `examples` is N, all training examples.
    """
    logits = method(inputs, drawn, config.likelihood_samples)
    nll_sum = negative_log_likelihood(logits, labels, config.likelihood).sum()
    kl = method.divergence(drawn)
    part = nll_sum / batch + kl * (kl_weight / examples / workers.size)
    return Loss(part, nll_sum.detach(), kl.detach())
