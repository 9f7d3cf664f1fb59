"""What a step of an optimiser is: torch's formulas as functions of single numbers, so that any sweep can apply them.

Legend: D outputs, F features.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

Coefficients = tuple[float, ...] | tuple[Tensor, ...]
"""The numbers of one step, in the order that the rule's formula and the kernel's share."""


@dataclass(frozen=True)
class Rule(ABC):
    """One step of an optimiser. `step` counts from 1; it also keys the noise of stochastic rounding."""

    lr: float
    step: int = 1

    first_moments: ClassVar[tuple[str, ...]] = ()
    """State tensors, as torch names them, that keep the weights' precision."""
    second_moments: ClassVar[tuple[str, ...]] = ()
    """State tensors that may be bfloat16."""

    @abstractmethod
    def coefficients(self) -> tuple[float, ...]:
        """The numbers that `stepped` takes."""

    @staticmethod
    @abstractmethod
    def stepped(
        weight_DF: Tensor, state: dict[str, Tensor], gradient_DF: Tensor, coefficients: Coefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights and state after the step, as new tensors."""


@dataclass(frozen=True)
class RMSProp(Rule):
    """torch.optim.RMSprop without momentum; the defaults are the paper's. Epsilon is outside the root."""

    decay: float = 0.9
    eps: float = 1e-5

    second_moments = ("square_avg",)

    def coefficients(self) -> tuple[float, ...]:
        """Learning rate, decay, its complement, epsilon."""
        return self.lr, self.decay, 1 - self.decay, self.eps

    @staticmethod
    def stepped(
        weight_DF: Tensor, state: dict[str, Tensor], gradient_DF: Tensor, coefficients: Coefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights and state after the step."""
        lr, decay, rest, eps = coefficients
        square_avg = state["square_avg"] * decay + gradient_DF * gradient_DF * rest
        return weight_DF - gradient_DF / (square_avg.sqrt() + eps) * lr, {"square_avg": square_avg}


@dataclass(frozen=True)
class Adam(Rule):
    """torch.optim.Adam without weight decay. `step` gives the bias corrections (Kingma & Ba 2015, algorithm 1)."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    first_moments = ("exp_avg",)
    second_moments = ("exp_avg_sq",)

    def coefficients(self) -> tuple[float, ...]:
        """Corrected learning rate, 1 - beta1, beta2, 1 - beta2, epsilon, root of the second bias correction."""
        beta1, beta2 = self.betas
        return (
            self.lr / (1 - beta1**self.step),
            1 - beta1,
            beta2,
            1 - beta2,
            self.eps,
            (1 - beta2**self.step) ** 0.5,
        )

    @staticmethod
    def stepped(
        weight_DF: Tensor, state: dict[str, Tensor], gradient_DF: Tensor, coefficients: Coefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights and state after the step."""
        lr, rest1, beta2, rest2, eps, correction = coefficients
        exp_avg = state["exp_avg"] + (gradient_DF - state["exp_avg"]) * rest1
        exp_avg_sq = state["exp_avg_sq"] * beta2 + gradient_DF * gradient_DF * rest2
        weight = weight_DF - exp_avg / (exp_avg_sq.sqrt() / correction + eps) * lr
        return weight, {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


@dataclass(frozen=True)
class SGD(Rule):
    """torch.optim.SGD with momentum and no dampening. From a buffer of zeros the first step makes it the gradient."""

    momentum: float = 0.9

    first_moments = ("momentum_buffer",)

    def coefficients(self) -> tuple[float, ...]:
        """Learning rate, momentum."""
        return self.lr, self.momentum

    @staticmethod
    def stepped(
        weight_DF: Tensor, state: dict[str, Tensor], gradient_DF: Tensor, coefficients: Coefficients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights and state after the step."""
        lr, momentum = coefficients
        momentum_buffer = state["momentum_buffer"] * momentum + gradient_DF
        return weight_DF - momentum_buffer * lr, {"momentum_buffer": momentum_buffer}
