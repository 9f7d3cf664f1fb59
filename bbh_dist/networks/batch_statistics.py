"""Normalisation by the statistics of a batch, and by those of a fixed batch that stands beside every input.

A distribution over weights has no running statistics: every weight sample has its own. So what serves single inputs
here is a reference batch of training images, that every weight sample sees first.
Legend: S weight samples, B batch, C channels, H height, W width.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bbh_dist.networks.normalisation import Normalisation

EPS = 1e-5
_AXES = (1, 3, 4)

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over those who hold other parts of the same batch, differentiable."""


class BatchNormalisation(Normalisation):
    """Every channel has mean 0 and variance 1 over the batch, in training and in evaluation, for each weight sample.

    Without learned scale and shift. A prediction depends on its neighbours: evaluations take blocks of `examples`
    consecutive inputs, always the same.
    Source: Ioffe & Szegedy 2015, algorithm 1, with epsilon 1e-5.
    """

    def __init__(self, examples: int) -> None:
        self.together: int | None = examples
        self._total: Total | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Activations (S, B, C, H, W) normalised over B, H and W."""
        return batch_norm(x) if self._total is None else _normalised(x, *whole_statistics(x, self._total))

    @contextmanager
    def training(self, total: Total | None) -> Iterator[None]:
        """Have batches be parts of a larger one, whose statistics are `total`s of theirs; whole ones where None."""
        self._total = total
        try:
            yield
        finally:
            self._total = None


class ReferenceNormalisation(BatchNormalisation):
    """As batch normalisation in training; in evaluation by the statistics of a reference batch (R, ...) of inputs.

    Each weight sample sees the reference batch once for all inputs, whose predictions do not depend on each other.
    Outside of an evaluation a batch's own statistics are taken.
    """

    def __init__(self, reference: Tensor | None) -> None:
        super().__init__(examples=1)
        self.together = None
        self.reference = reference
        self._recorded: list[tuple[Tensor, Tensor]] | None = None
        self._replayed: Iterator[tuple[Tensor, Tensor]] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Activations (S, B, C, H, W) normalised over B, H and W, or by the statistics of the reference batch."""
        if self._replayed is not None:
            return _normalised(x, *next(self._replayed))
        if self._recorded is not None:
            self._recorded.append(statistics(x))
            return _normalised(x, *self._recorded[-1])
        return super().__call__(x)

    @contextmanager
    def evaluating(self, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Push the reference batch through `forward`, and normalise what follows by its statistics."""
        if self.reference is None:
            raise ValueError("normalisation by a reference batch needs one for predictions")
        self._recorded = []
        try:
            forward(self.reference)
            # A network normalises in the same order every time.
            recorded, self._recorded = self._recorded, None
            self._replayed = itertools.cycle(recorded)
            yield
        finally:
            self._recorded = self._replayed = None


def batch_norm(x: Tensor) -> Tensor:
    """Activations (S, B, C, H, W) with mean 0 and variance 1 in every channel of every weight sample."""
    samples = x.shape[0]
    images = x[0] if samples == 1 else x.transpose(0, 1).flatten(1, 2)
    # torch.batch_norm takes a single number per channel, too, which F.batch_norm refuses.
    result = torch.batch_norm(images, None, None, None, None, True, 0.0, EPS, torch.backends.cudnn.enabled)
    return result[None] if samples == 1 else result.unflatten(1, (samples, -1)).transpose(0, 1)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (S, 1, C, 1, 1) of activations (S, B, C, H, W) over B, H and W; zeros of an empty batch."""
    if x.shape[1] == 0:  # a sum, so that backward passes here as it does where there are examples
        nothing = x.sum(_AXES, keepdim=True)
        return nothing, nothing
    variance, mean = torch.var_mean(x, _AXES, correction=0, keepdim=True)
    return mean, variance


def whole_statistics(x: Tensor, total: Total) -> tuple[Tensor, Tensor]:
    """Mean and variance (S, 1, C, 1, 1) over the batch of which `x` (S, B, C, H, W) is a part, summed in float64."""
    mean, variance = (part.double() for part in statistics(x))
    count = torch.full_like(mean, x.shape[1] * x.shape[3] * x.shape[4])
    sums = total(torch.stack([count, count * mean, count * (variance + mean.square())]))
    mean = sums[1] / sums[0]
    return mean.to(x.dtype), (sums[2] / sums[0] - mean.square()).clamp_min(0).to(x.dtype)


def _normalised(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (x - mean) * (variance + EPS).rsqrt()
