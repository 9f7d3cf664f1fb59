"""Predictions of a posterior: probabilities averaged over weight samples, in bounded memory.

Legend: S weight samples, B batch, N examples, C classes.
"""

from collections.abc import Callable, Iterator
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

    @property
    def is_finite(self) -> bool:
        """Whether all entropies are numbers."""
        return not bool(self.entropy.isnan().any())


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

    Memory does not grow with S, and with N only by the sums, which are kept in double precision. Every worker has
    the same mean.
    """
    noise = evaluated_noise(method, noise)
    sums: Tensor | None = None
    for own in passes(method, inputs, noise, workers):
        places = own.examples
        found = summed(own.outputs, inputs[places.start : places.stop], places)
        sums = found.new_zeros(len(inputs), *found.shape[1:]) if sums is None else sums
        sums[places.start : places.stop] += found
    assert sums is not None
    return workers.sum(sums, "predictions") / len(noise)


@dataclass(frozen=True)
class Pass:
    """Some of the weight samples, by their places among those of the noise, and some of the inputs."""

    samples: range
    examples: range
    outputs: Callable[[Tensor], Tensor]
    """Outputs (samples, examples, C) of the network for these inputs, or others in their places."""


def evaluated_noise(method: Method, noise: Noise) -> Noise:
    """The noise of the weight samples that are needed: where a method has fixed ones, of each of them once."""
    return noise if method.fixed_samples is None else replace(noise, samples=range(method.fixed_samples))


def passes(method: Method, inputs: Tensor, noise: Noise, workers: Workers) -> Iterator[Pass]:
    """A worker's share of all pairs of weight samples and inputs (N, ...), each pair once over all workers.

    Some samples are drawn at a time and a few of them pushed through in batches. Workers take shares of the samples,
    and of the inputs where samples do not divide. Where a network normalises by the statistics of a batch, batches are
    fixed blocks of the inputs, whoever takes them.
    """
    share = workers.samples(len(noise)) if method.shards.count == 1 else SampleShare(len(noise))
    normalisation = method.network.normalisation
    for start in range(share.own.start, share.own.stop, _SAMPLES_AT_ONCE):
        samples = noise.samples[start : min(share.own.stop, start + _SAMPLES_AT_ONCE)]
        drawn = method.draw(replace(noise, samples=samples))
        for own, pieces in _passes(method, workers, share, len(samples), inputs):
            places = range(start + own.own.start, start + own.own.stop)
            with normalisation.evaluating(partial(method, drawn=drawn, samples=own)):
                for piece in pieces:
                    yield Pass(places, piece, partial(method, drawn=drawn, samples=own, first=piece.start))


def _sums(logits_SBC: Tensor) -> Tensor:
    """(B, C + 1): sums over samples of probabilities and of their entropies."""
    probabilities = logits_SBC.double().softmax(-1)
    return torch.cat([probabilities.sum(0), entropy(probabilities).sum(0)[:, None]], dim=1)


def _passes(
    method: Method, workers: Workers, share: SampleShare, drawn: int, inputs: Tensor
) -> list[tuple[SampleShare, list[range]]]:
    """This worker's passes over what was drawn: some of the samples, and the pieces of its share of the examples."""
    together = method.network.normalisation.together
    if method.shards.count > 1:
        # Shards have drawn their rows of all of these samples, and now each gets some of them whole.
        own = workers.samples(drawn)
        size = max(1, _EXAMPLES_TIMES_SAMPLES // len(own.own))
        return [(own, _pieces(len(inputs), workers, own, size, together))]
    limit = min(_IN_CACHE, _EXAMPLES_TIMES_SAMPLES) if inputs.device.type == "cpu" else _EXAMPLES_TIMES_SAMPLES
    at_once = together or max(1, min(len(workers.examples(len(inputs), share)), _IN_CACHE))
    most = max(1, min(drawn, limit // at_once))
    samples = max(count for count in range(1, most + 1) if drawn % count == 0)
    pieces = _pieces(len(inputs), workers, share, max(1, limit // samples), together)
    return [(SampleShare(drawn, drawn // samples, index), pieces) for index in range(drawn // samples)]


def _pieces(count: int, workers: Workers, samples: SampleShare, size: int, together: int | None) -> list[range]:
    """A worker's share of `count` examples in pieces of at most `size`; where there are none, too, one piece.

    With `together` the pieces are whole blocks of at most so many examples, as long as each other but for one.
    """
    if together is None:
        part = workers.examples(count, samples)
        return [range(at, min(at + size, part.stop)) for at in range(part.start, max(part.stop, part.start + 1), size)]
    blocks = max(1, -(-count // together))
    own = workers.examples(blocks, samples)
    return [range(count * at // blocks, count * (at + 1) // blocks) for at in own] or [range(0)]
