"""How likely labels are, given the outputs of a network: what makes a task a classification or a regression.

Legend: S weight samples, B batch, C outputs of the network.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bbh_dist.config import Kind


class Likelihood(ABC):
    """The distribution of a label, given outputs of a network under one weight sample."""

    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Outputs that the network has to have."""

    @abstractmethod
    def log_prob(self, outputs_SBC: Tensor, labels: Tensor) -> Tensor:
        """Logarithms (S, B) of the probability or density of labels (B,), or (S, B), in nats."""


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Labels are classes, numbered from 0; outputs are their logits."""

    kind = "classification"
    classes: int

    @property
    def outputs(self) -> int:
        """One for each class."""
        return self.classes

    def log_prob(self, outputs_SBC: Tensor, labels: Tensor) -> Tensor:
        """Logarithms (S, B) of the softmax's probability of integer labels, in nats."""
        return outputs_SBC.log_softmax(-1).gather(-1, labels.expand(outputs_SBC.shape[:-1])[..., None])[..., 0]


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Labels are numbers from N(offset + scale * output, stddev^2), all three in the units of the labels.

    Networks and priors are made for outputs near 1: offset and scale take them to the labels, which stay as they are,
    so that likelihoods and all measures are in the labels' own units.
    """

    kind = "regression"
    stddev: float
    offset: float = 0.0
    scale: float = 1.0

    @property
    def outputs(self) -> int:
        """One, for the mean."""
        return 1

    def mean(self, outputs_SBC: Tensor) -> Tensor:
        """Means (S, B) of the labels."""
        return self.offset + self.scale * outputs_SBC[..., 0]

    def log_prob(self, outputs_SBC: Tensor, labels: Tensor) -> Tensor:
        """Logarithms (S, B) of the density at the labels, in nats."""
        return self.log_density(self.mean(outputs_SBC), labels)

    def log_density(self, means: Tensor, labels: Tensor) -> Tensor:
        """Logarithm of N(labels; means, stddev^2) in nats, of each."""
        deviations = (labels - means) / self.stddev
        return -0.5 * deviations.square() - math.log(self.stddev * math.sqrt(2 * math.pi))
