"""Sweeps by torch.compile, for GPUs: inductor fuses the outer product and the step into one pass.

Legend: S weight samples, D outputs, F features.
"""

import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from bbh_dist.factored import reference
from bbh_dist.factored.rounding import noise_seed
from bbh_dist.factored.rules import Rule
from bbh_dist.private_folder import keep_torch_programs_private

_MOST_SAMPLES = 16
"""The outer products are unrolled over samples; above this a matrix product per block is better."""
_MOST_COMPILATIONS = 64
"""One for each rule, number of samples and choice of dtypes; torch allows 8 by itself."""

_failed = False


def available() -> bool:
    """Whether no compilation has failed in this process."""
    return not _failed


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
    """As the reference's, which see; it does the work where torch.compile fails, after one line on stderr."""
    if len(features_SF) <= _MOST_SAMPLES and not _failed:
        numbers = torch.tensor(rule.coefficients(), dtype=torch.float64).unbind()
        offset = torch.tensor(noise_seed(rule.step, salt) + first_row)
        gradient = reference.feature_gradient(gradients_SD, weight_DF) if with_feature_gradient else None
        if _done(_compiled(type(rule)), weight_DF, state, gradients_SD, features_SF, numbers, offset):
            return gradient
    return reference.sweep(weight_DF, state, gradients_SD, features_SF, rule, first_row, salt, with_feature_gradient)


def _done(step: Callable[..., None], *arguments: object) -> bool:
    """Whether the step could be compiled and ran; compilation fails before anything ran."""
    import torch._dynamo as dynamo  # takes a second, which CPU runs need not wait

    global _failed
    try:
        keep_torch_programs_private()
        with dynamo.config.patch(recompile_limit=_MOST_COMPILATIONS):
            step(*arguments)
    except (dynamo.exc.TorchDynamoException, dynamo.exc.FailOnRecompileLimitHit, OSError) as error:
        _failed = True
        why = " ".join(str(error).split())[:300]
        print(f"bbh_dist: sweeps in plain torch, several times slower: torch.compile failed: {why}", file=sys.stderr)
    return not _failed


@functools.cache
def _compiled(rule: type[Rule]) -> Callable[..., None]:
    """The step of one rule. Numbers come as tensors without axes, so that new ones need no new compilation."""

    def step(
        weight_DF: Tensor,
        state: dict[str, Tensor],
        gradients_SD: Tensor,
        features_SF: Tensor,
        numbers: tuple[Tensor, ...],
        noise_offset: Tensor,
    ) -> None:
        gradient_DF = torch.zeros_like(weight_DF, dtype=features_SF.dtype)
        for gradient_D, features_F in zip(gradients_SD, features_SF, strict=True):
            gradient_DF = gradient_DF + gradient_D[:, None] * features_F
        reference.step_in_place(weight_DF, state, gradient_DF, rule, numbers, noise_offset)

    return torch.compile(step, dynamic=True, fullgraph=True)
