"""Predictions of a posterior: probabilities averaged over weight samples, in bounded memory.

Legend: S weight samples, B batch, N examples, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.sharding import SampleShare, Workers

_SAMPLES_AT_ONCE = 20
"""Drawn together: the layer-wise generator reads all of its heads for each draw."""
_EXAMPLES_TIMES_SAMPLES = 2_000
"""Pushed through together."""
_IN_CACHE = 200
"""The same on a CPU, and a full batch. LeNet on one core: a sample with 100 to 250 examples takes what the bare network
takes, ten samples with 50 a third more."""
_ALONE = Workers()

Summed = Callable[[Callable[[Tensor], Tensor], Tensor, range], Tensor]
"""`summed(logits, x, places)`: sums (B, ...) over some weight samples, in double precision, of something about the
inputs x (B, ...) at these places among all; `logits(x)` are those of these samples, (S, B, C)."""


@dataclass(frozen=True)
class Prediction:
    """Mean class probabilities (N, C) over the weight samples, and the mean entropy of the samples (N,), in nats."""

    probabilities: Tensor
    expected_entropy: Tensor

    @property
    def entropy(self) -> Tensor:
        """Predictive entropy (N,): of the mean probabilities, nats."""
        return entropy(self.probabilities)

    @property
    def mutual_information(self) -> Tensor:
        """Information (N,) of label and weights about each other: entropy of the mean minus mean entropy, nats."""
        return (self.entropy - self.expected_entropy).clamp_min(0)


def entropy(probabilities: Tensor) -> Tensor:
    """Entropy over the last axis, nats; 0 log 0 = 0."""
    return torch.special.entr(probabilities).sum(-1)


@torch.no_grad()
def predict(method: Method, inputs: Tensor, noise: Noise, workers: Workers = _ALONE) -> Prediction:
    """The prediction for inputs (N, ...) under one weight sample per sample of the noise, the same on every worker."""
    means = mean_over_samples(lambda logits, x, _: _sums(logits(x)), method, inputs, noise, workers)
    return Prediction(means[:, :-1], means[:, -1])


@torch.no_grad()
def mean_over_samples(
    summed: Summed, method: Method, inputs: Tensor, noise: Noise, workers: Workers = _ALONE
) -> Tensor:
    """What `summed` gives for inputs (N, ...), as a mean over weight samples: one per sample of the noise.

    Some samples are drawn at a time and a few of them pushed through in batches: memory does not grow with S, and with
    N only by the sums, which are kept in double precision. Workers take shares of the samples, and of the inputs where
    samples do not divide; the mean is the same on each.
    """
    noise = replace(noise, samples=noise.samples[:1]) if method.point_estimate else noise
    share = workers.samples(len(noise)) if method.shards.count == 1 else SampleShare(len(noise))
    sums: Tensor | None = None
    for samples in _chunks(noise.samples[share.own.start : share.own.stop]):
        drawn = method.draw(replace(noise, samples=samples))
        for own, part, batch in _passes(method, workers, share, len(samples), inputs):
            for first in range(part.start, max(part.stop, part.start + 1), batch):  # of none, too, one call
                places = range(first, min(first + batch, part.stop))
                logits = partial(method, drawn=drawn, samples=own, first=first)
                found = summed(logits, inputs[first : places.stop], places)
                sums = found.new_zeros(len(inputs), *found.shape[1:]) if sums is None else sums
                sums[first : places.stop] += found
    assert sums is not None
    return workers.sum(sums, "predictions") / len(noise)


def _sums(logits_SBC: Tensor) -> Tensor:
    """(B, C + 1): sums over samples of probabilities and of their entropies."""
    probabilities = logits_SBC.double().softmax(-1)
    return torch.cat([probabilities.sum(0), entropy(probabilities).sum(0)[:, None]], dim=1)


def _passes(
    method: Method, workers: Workers, share: SampleShare, drawn: int, inputs: Tensor
) -> list[tuple[SampleShare, range, int]]:
    """This worker's passes over what was drawn: some of the samples, its share of the examples, how many at once."""
    if method.shards.count > 1:
        # Shards have drawn their rows of all of these samples, and now each gets some of them whole.
        own = workers.samples(drawn)
        return [(own, workers.examples(len(inputs), own), max(1, _EXAMPLES_TIMES_SAMPLES // len(own.own)))]
    part = workers.examples(len(inputs), share)
    limit = min(_IN_CACHE, _EXAMPLES_TIMES_SAMPLES) if inputs.device.type == "cpu" else _EXAMPLES_TIMES_SAMPLES
    most = max(1, min(drawn, limit // max(1, min(len(part), _IN_CACHE))))
    together = max(size for size in range(1, most + 1) if drawn % size == 0)
    groups = drawn // together
    return [(SampleShare(drawn, groups, index), part, max(1, limit // together)) for index in range(groups)]


def _chunks(samples: Sequence[int]) -> list[Sequence[int]]:
    return [samples[i : i + _SAMPLES_AT_ONCE] for i in range(0, len(samples), _SAMPLES_AT_ONCE)]
