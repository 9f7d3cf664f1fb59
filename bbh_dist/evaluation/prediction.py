"""Predictions of a posterior: probabilities averaged over weight samples, in bounded memory.

Legend: S weight samples, B batch, N examples, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bbh_dist.methods import Method
from bbh_dist.noise import Noise

_SAMPLES_AT_ONCE = 10
_EXAMPLES_TIMES_SAMPLES = 2_000


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
def predict(method: Method, inputs: Tensor, noise: Noise) -> Prediction:
    """The prediction for inputs (N, ...) under one weight sample per sample of the noise.

    A few samples are drawn at a time and pushed through in batches: memory does not grow with S, and with N only by
    the probabilities of ten samples. Sums are kept in double precision.
    """
    total: Tensor | None = None
    entropies = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
    samples = 0
    for chunk in _chunks(noise.samples):
        drawn = method.draw(replace(noise, samples=chunk))
        parts = [method(batch, drawn) for batch in inputs.split(max(1, _EXAMPLES_TIMES_SAMPLES // len(chunk)))]
        probabilities = torch.cat([part.double().softmax(-1) for part in parts], dim=1)
        samples += len(probabilities)
        entropies += entropy(probabilities).sum(0)
        total = probabilities.sum(0) if total is None else total + probabilities.sum(0)
        if len(probabilities) < len(chunk):  # a point estimate has one sample, however many are asked for
            break
    assert total is not None
    return Prediction(total / samples, entropies / samples)


def _chunks(samples: Sequence[int]) -> list[Sequence[int]]:
    return [samples[i : i + _SAMPLES_AT_ONCE] for i in range(0, len(samples), _SAMPLES_AT_ONCE)]
