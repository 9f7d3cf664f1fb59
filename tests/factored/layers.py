"""Small layers for the tests of sweeps."""

import torch
from torch import Tensor

from bbh_dist.factored import SGD, Adam, RMSProp, Rule, new_state

RULES = {"rmsprop": RMSProp(1e-2), "adam": Adam(1e-2), "sgd": SGD(1e-2)}


class Layer:
    """Weights with a state as after some steps, and factors of a gradient; the gradients are a slice of wider ones."""

    def __init__(
        self,
        rule: Rule,
        *,
        S: int = 5,
        D: int = 37,
        F: int = 48,
        weight_dtype: torch.dtype = torch.float32,
        second_dtype: torch.dtype | None = None,
        transposed: bool = False,
        seed: int = 0,
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        dtype = torch.float64 if weight_dtype == torch.float64 else torch.float32

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=dtype)

        self.rule = rule
        self.weight = normal(D, F).to(weight_dtype)
        self.state = new_state(self.weight, rule, second_dtype)
        for value in self.state.values():
            value.copy_(normal(D, F).square())
        self.features = normal(S, F)
        self.gradients = normal(D + 5, S).T[:, 2 : D + 2] if transposed else normal(S, D + 5)[:, 2 : D + 2]

    def tensors(self) -> list[Tensor]:
        """Copies of weights and state."""
        return [tensor.clone() for tensor in (self.weight, *self.state.values())]
