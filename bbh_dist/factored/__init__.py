"""Steps of a wide linear layer y = B W^T + bias whose gradient is never stored.

With features B (S, F) and the gradient A (S, D) for the outputs, the gradient for the weights is the outer product
A^T B of rank S. One sweep over weights and optimiser state makes it, uses it and forgets it.

Legend: S weight samples, D outputs, F features.
"""

import torch
from torch import Tensor

from bbh_dist.allocator import on_huge_pages
from bbh_dist.factored import compiled, fused, reference
from bbh_dist.factored.build import library
from bbh_dist.factored.rules import SGD, Adam, RMSProp, Rule

__all__ = [
    "SGD",
    "Adam",
    "RMSProp",
    "Rule",
    "backend",
    "feature_gradient",
    "new_state",
    "product",
    "squared_norm",
    "sweep",
]


@torch.no_grad()
def product(features_SF: Tensor, weight_DF: Tensor, bias_D: Tensor) -> Tensor:
    """Outputs (S, D) = B W^T + bias, in float32 (float64 for float64 weights).

    Raises:
        ValueError: the shapes don't fit.
    """
    _check(weight_DF, features_SF=features_SF, bias_D=bias_D)
    dtype = _compute_dtype(weight_DF)
    way = compiled if compiled.suits(len(features_SF), weight_DF, {}) else reference
    return way.product(features_SF.to(dtype), weight_DF, bias_D.to(dtype))


@torch.no_grad()
def feature_gradient(gradients_SD: Tensor, weight_DF: Tensor) -> Tensor:
    """Gradient A W (S, F) for the features, for when a clipping factor must be known before the sweep.

    Raises:
        ValueError: the shapes don't fit.
    """
    _check(weight_DF, gradients_SD=gradients_SD)
    way = compiled if compiled.suits(len(gradients_SD), weight_DF, {}) else reference
    return way.feature_gradient(gradients_SD.to(_compute_dtype(weight_DF)), weight_DF)


@torch.no_grad()
def sweep(
    weight_DF: Tensor,
    state: dict[str, Tensor],
    gradients_SD: Tensor,
    features_SF: Tensor,
    rule: Rule,
    *,
    first_row: int = 0,
    feature_gradient: bool = True,
    salt: int = 0,
) -> Tensor | None:
    """Gradient A W (S, F) for the features, of the weights as they were; or None.

    Weights and state step in place along A^T B. Bfloat16 tensors are rounded stochastically: the noise is a
    function of rule.step, `salt` (one number per tensor) and the row's number in the whole tensor, of which these
    weights begin at `first_row`. So workers with a share of the rows each get the bits that one would get.

    Raises:
        ValueError: the shapes don't fit, or the state is not the rule's.
    """
    _check(weight_DF, gradients_SD=gradients_SD, features_SF=features_SF)
    _check_state(weight_DF, state, rule)
    dtype = _compute_dtype(weight_DF)
    gradients, features = gradients_SD.to(dtype), features_SF.to(dtype)
    way = reference.sweep
    if weight_DF.is_cuda:
        way = fused.sweep
    elif compiled.suits(len(features), weight_DF, state, rule):
        way = compiled.sweep
    return way(weight_DF, state, gradients, features, rule, first_row, salt, feature_gradient)


@torch.no_grad()
def squared_norm(gradients_SD: Tensor, features_SF: Tensor) -> Tensor:
    """Squared Frobenius norm of A^T B as a float64 (): the sum of (A A^T) * (B B^T), so it needs no weights.

    Raises:
        ValueError: the numbers of samples differ.
    """
    if gradients_SD.dim() != 2 or features_SF.dim() != 2 or len(gradients_SD) != len(features_SF):
        raise ValueError(
            f"gradients {tuple(gradients_SD.shape)}, features {tuple(features_SF.shape)}: not (S, D), (S, F)"
        )
    gradients, features = gradients_SD.double(), features_SF.double()
    return ((gradients @ gradients.T) * (features @ features.T)).sum()


def new_state(weight_DF: Tensor, rule: Rule, second_moment_dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Zeros for the state of the rule, by torch's names; first moments in float32 (float64 for float64 weights).

    Second moments are alike, or bfloat16 where `second_moment_dtype` says so.
    """
    dtype = _compute_dtype(weight_DF)
    dtypes = dict.fromkeys(rule.first_moments, dtype)
    dtypes |= dict.fromkeys(rule.second_moments, second_moment_dtype or dtype)
    return {name: on_huge_pages(torch.empty_like(weight_DF, dtype=of)).zero_() for name, of in dtypes.items()}


def backend(device: str | torch.device = "cpu") -> str:
    """What does the work on a device, for reports: "compiled C", "torch.compile" or "torch reference"."""
    if torch.device(device).type == "cuda":
        return "torch.compile" if fused.available() else "torch reference"
    return "compiled C" if library() is not None else "torch reference"


def _compute_dtype(weight_DF: Tensor) -> torch.dtype:
    return torch.float64 if weight_DF.dtype == torch.float64 else torch.float32


def _check(weight_DF: Tensor, **others: Tensor) -> None:
    if weight_DF.dim() != 2:
        raise ValueError(f"weight {tuple(weight_DF.shape)}: not (D, F)")
    devices = {str(tensor.device) for tensor in (weight_DF, *others.values())}
    if len(devices) > 1:
        raise ValueError(f"weight and {', '.join(name.split('_')[0] for name in others)} are on {sorted(devices)}")
    sizes = {"D": weight_DF.shape[0], "F": weight_DF.shape[1]}
    for name, tensor in others.items():
        kind, axes = name.split("_")
        fits = tensor.dim() == len(axes) and all(
            sizes.setdefault(axis, size) == size for axis, size in zip(axes, tensor.shape, strict=True)
        )
        if not fits:
            shapes = ", ".join(f"{other.split('_')[0]} {tuple(others[other].shape)}" for other in others)
            raise ValueError(f"weight {tuple(weight_DF.shape)}, {shapes}: {kind} is not ({', '.join(axes)})")


def _check_state(weight_DF: Tensor, state: dict[str, Tensor], rule: Rule) -> None:
    names, place = {*rule.first_moments, *rule.second_moments}, (weight_DF.shape, weight_DF.device)
    if names != state.keys() or any((tensor.shape, tensor.device) != place for tensor in state.values()):
        given = {name: tuple(tensor.shape) for name, tensor in state.items()}
        raise ValueError(f"state {given}: not {sorted(names)} of shape {tuple(weight_DF.shape)} on {weight_DF.device}")
