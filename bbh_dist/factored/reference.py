"""Products and sweeps in plain torch, for any device and dtype; `kernel.c` is tested against this file.

Legend: S weight samples, D outputs, F features.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from bbh_dist.factored.rounding import noise, noise_seed, rounded
from bbh_dist.factored.rules import Coefficients, Rule
from bbh_dist.products import linear

_BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 1 << 27}
"""A block of weights and its temporaries stay in a core's cache; a GPU needs more to be busy."""


def product(features_SF: Tensor, weight_DF: Tensor, bias_D: Tensor) -> Tensor:
    """Outputs (S, D) of the layer."""
    if weight_DF.dtype == features_SF.dtype:
        return linear(features_SF, weight_DF, bias_D)
    outputs_SD = features_SF.new_empty(features_SF.shape[0], weight_DF.shape[0])
    for rows in _blocks(weight_DF):
        outputs_SD[:, rows] = features_SF @ weight_DF[rows].to(features_SF.dtype).T
    return outputs_SD + bias_D


def feature_gradient(gradients_SD: Tensor, weight_DF: Tensor) -> Tensor:
    """Gradient (S, F) for the features."""
    if weight_DF.dtype == gradients_SD.dtype:
        return gradients_SD @ weight_DF
    total = gradients_SD.new_zeros(gradients_SD.shape[0], weight_DF.shape[1])
    for rows in _blocks(weight_DF):
        total += gradients_SD[:, rows] @ weight_DF[rows].to(gradients_SD.dtype)
    return total


def sweep(
    weight_DF: Tensor,
    state: dict[str, Tensor],
    gradients_SD: Tensor,
    features_SF: Tensor,
    rule: Rule,
    first_row: int,
    salt: int,
    with_feature_gradient: bool,
) -> Tensor | None:
    """Gradient (S, F) for the features, of the weights as they were; steps weights and state in place."""
    offset, coefficients = noise_seed(rule.step, salt) + first_row, rule.coefficients()
    total = torch.zeros_like(features_SF) if with_feature_gradient else None
    for rows in _blocks(weight_DF):
        block = {name: tensor[rows] for name, tensor in state.items()}
        if total is not None:
            total += gradients_SD[:, rows] @ weight_DF[rows].to(features_SF.dtype)
        gradient_DF = gradients_SD[:, rows].T @ features_SF
        step_in_place(weight_DF[rows], block, gradient_DF, type(rule), coefficients, offset + rows.start)
    return total


def step_in_place(
    weight_DF: Tensor,
    state: dict[str, Tensor],
    gradient_DF: Tensor,
    rule: type[Rule],
    coefficients: Coefficients,
    noise_offset: int | Tensor,
) -> None:
    """Apply the rule to weights and state. Bfloat16 ones are rounded stochastically, the weights by the upper bits."""
    wide = {name: tensor.to(gradient_DF.dtype) for name, tensor in state.items()}
    weight, stepped = rule.stepped(weight_DF.to(gradient_DF.dtype), wide, gradient_DF, coefficients)
    if torch.bfloat16 in (weight_DF.dtype, *(tensor.dtype for tensor in state.values())):
        bits = noise(noise_offset, weight_DF)
        weight = _narrowed(weight, weight_DF, bits >> 16)
        stepped = {name: _narrowed(tensor, state[name], bits & 0xFFFF) for name, tensor in stepped.items()}
    weight_DF.copy_(weight)
    for name, tensor in stepped.items():
        state[name].copy_(tensor)


def _narrowed(x: Tensor, target: Tensor, noise_16: Tensor) -> Tensor:
    return rounded(x, noise_16) if target.dtype == torch.bfloat16 else x


def _blocks(weight_DF: Tensor) -> Iterator[slice]:
    rows = max(1, _BLOCK_BYTES.get(weight_DF.device.type, 1 << 20) // (4 * max(1, weight_DF.shape[1])))
    for start in range(0, weight_DF.shape[0], rows):
        yield slice(start, min(start + rows, weight_DF.shape[0]))
