"""The contract of an approximate posterior."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bbh_dist.networks import Network
from bbh_dist.noise import Noise
from bbh_dist.sharding import SampleShare, Shards


class Method(nn.Module, ABC):
    """An approximate posterior over the weights of a network.

    `draw` gives samples of it, an opaque object that the others take. Who else holds parts of a sample is handed to
    it as `shards`. A gradient of the weights is summed there over all workers that used them, so gradients of
    parameters need no sum, but for those that `partial_parameters` names.
    Legend: S weight samples, B batch, C classes.
    """

    network: Network
    shards: Shards
    fixed_samples: int | None = None
    """Weight samples that there are where they are parameters, of which a prediction takes each once; None where a
    posterior is drawn from."""
    independent = False
    """Whether weight samples are models of their own: in training each has its own batches, loss and gradient norm."""
    noise_by_place = False
    """Whether a weight sample's noise also depends on the place of an example among those that are evaluated."""
    pretraining_steps = 0
    """How often `adapt` is called with samples of the start before training begins."""

    def partial_parameters(self) -> list[nn.Parameter]:
        """Parameters that all shards hold and of whose gradients each has a term."""
        return []

    def split_rows(self) -> dict[str, int]:
        """Rows over all shards of every parameter of which a shard holds some only, by name."""
        return {}

    @abstractmethod
    def draw(self, noise: Noise) -> Any:
        """Weight samples, one per sample of the noise, decided by its keys."""

    def adapt(self, drawn: Any) -> None:
        """Fit what the divergence has to know of the posterior to a step's samples, before the step; none by default.

        What is fitted is held in buffers, and is the same on every worker.
        """

    def measures(self, noise: Noise) -> dict[str, float]:
        """What there is to say of the posterior itself, named `posterior/MEASURE`, from samples; nothing by default."""
        return {}

    def prefetch(self, drawn: Any, samples: SampleShare) -> None:
        """Begin to bring from other workers what `forward` will need of them; nothing by default.

        It travels while the divergence's terms are computed, and its gradient while theirs is.
        """

    @abstractmethod
    def forward(self, inputs: Tensor, drawn: Any, samples: SampleShare | None = None, first: int = 0) -> Tensor:
        """Logits (S, B, C) of inputs (B, ...) under a share of the drawn weights, all of them by default.

        `first` is the place of the first input in its batch or data set. It keys the noise of methods that have some
        for every example, so that nothing depends on who evaluates an example, or beside which others.
        """

    def each(self, inputs: Tensor, drawn: Any, samples: SampleShare, first: int = 0) -> Tensor:
        """Logits (S, B, C) of inputs (S, B, ...), where every weight sample of the share has examples of its own."""
        lone = [SampleShare(samples.count, samples.count, index) for index in samples.own]
        return torch.cat([self(x, drawn, sample, first) for x, sample in zip(inputs, lone, strict=True)])

    def begin_divergence(self, drawn: Any) -> Callable[[], Tensor]:
        """Begin `divergence`; what is returned, to be called once, waits for what other workers know of it."""
        divergence = self.divergence(drawn)
        return lambda: divergence

    @abstractmethod
    def divergence(self, drawn: Any) -> Tensor:
        """KL from posterior to prior, in nats over all weights, or the penalty in its place; not divided by data."""
