"""The objective: mean negative log-likelihood + kl_weight * anneal * KL / N. The one place that divides by N."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from bbh_dist.config import Anneal, MethodConfig
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import SampleShare
from bbh_dist.tasks import Categorical, Likelihood

_CLASSES = Categorical(2)
"""Its probabilities are the same for any number of classes."""


class Loss(NamedTuple):
    """A worker's part of the objective."""

    part: Tensor
    """What to differentiate: this worker's terms of the likelihood and the whole divergence. Gradients of the
    likelihood are summed over workers where the weights are (see `Shards`)."""
    nll_sum: Tensor
    """This worker's terms of the negative log-likelihood summed over the batch, nats; over workers they add up."""
    kl: Tensor
    """The divergence, nats, the same on every worker."""


class Steps(NamedTuple):
    """What training steps call."""

    objective: Callable[..., Loss]
    """As `objective` below."""
    noise: type[Noise]
    """What they draw from."""
    begin: Callable[[], None]
    """To be called before all else."""


def annealed(kl_weight: float, anneal: Anneal, epoch: float) -> float:
    """KL weight at a time in epochs: 0 until `start`, then linear to `kl_weight` over `epochs`."""
    if epoch < anneal.start:
        return 0.0
    if anneal.epochs == 0:
        return kl_weight
    return kl_weight * min(1.0, (epoch - anneal.start) / anneal.epochs)


def negative_log_likelihood(log_p_SB: Tensor, form: str) -> Tensor:
    """(B,) in nats: mean over samples of -log p (`mean_log`), or -log of the mean p (`log_mean`)."""
    if form == "mean_log":
        return -log_p_SB.mean(0)
    return -(log_p_SB.logsumexp(0) - math.log(len(log_p_SB)))


def objective(
    method: Method,
    config: MethodConfig,
    inputs: Tensor,
    labels: Tensor,
    drawn: Any,
    samples: SampleShare,
    *,
    first: int = 0,
    batch: int,
    examples: int,
    kl_weight: float,
    likelihood: Likelihood = _CLASSES,
) -> Loss:
    """This worker's part of the objective for its share (inputs, labels), from `first` on, of a batch of `batch`.

    `samples` is its share of the weight samples in the likelihood. `examples` is N, all training examples.
    `likelihood` is the task's, by default that of classes. Independent samples have inputs and labels each, with the
    sample axis first: what is reported are means over them, what is differentiated is the sum of their losses, so that
    the gradient of each is its own.
    """
    method.prefetch(drawn, samples)
    divergence = method.begin_divergence(drawn)
    outputs = (method.each if method.independent else method)(inputs, drawn, samples, first)
    kl = divergence()
    nll_sum = negative_log_likelihood(likelihood.log_prob(outputs, labels), config.likelihood).sum() / samples.groups
    loss = nll_sum / batch + kl * (kl_weight / examples)
    return Loss(loss * samples.count if method.independent else loss, nll_sum.detach(), kl.detach())


def plain_steps() -> Steps:
    """Steps by torch's operations, one after another."""
    return Steps(objective, Noise, lambda: None)
