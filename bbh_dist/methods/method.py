"""The contract of an approximate posterior."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from bbh_dist.noise import Noise


class Method(nn.Module, ABC):
    """An approximate posterior over the weights of a network.

    `draw` gives samples of it, an opaque object that the other two take; nothing here knows of workers.
    Legend: S weight samples, B batch, C classes.
    """

    @abstractmethod
    def draw(self, noise: Noise) -> Any:
        """Weight samples, one per sample of the noise, decided by its keys."""

    @abstractmethod
    def forward(self, inputs: Tensor, drawn: Any, samples: int | None = None) -> Tensor:
        """Logits (S, B, C) of inputs (B, ...) under the first `samples` of the drawn weights, all by default."""

    @abstractmethod
    def divergence(self, drawn: Any) -> Tensor:
        """KL from posterior to prior, in nats over all weights, or the penalty in its place; not divided by data."""
