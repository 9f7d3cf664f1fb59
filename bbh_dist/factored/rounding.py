"""Stochastic rounding to bfloat16 with noise that is a function of place and step, not of threads or workers.

Rounding to nearest would lose every increment below half a unit in the last place, 1/512 of the value: Adam's second
moment moves by 1/1000 a step. `kernel.c` has the same functions, bit for bit.

Legend: D outputs, F features.
"""

from typing import TypeVar

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF

Counter = TypeVar("Counter", int, Tensor)


def mixed(x: Counter) -> Counter:
    """32 bits that look random, of a counter below 2^32 (an int, or an int64 tensor).

    Source: "lowbias32" of Wellons, "Prospecting for Hash Functions", 2018.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _WORD
    return x ^ (x >> 16)


def noise_seed(step: int, salt: int) -> int:
    """32 bits that tell steps, and tensors with a salt of their own, apart."""
    return mixed((mixed(step & _WORD) + salt) & _WORD)


def noise(offset: int | Tensor, weight_DF: Tensor) -> Tensor:
    """Int64 (D, F) of 32 random bits for every weight; `offset` is the seed and the first row's number, added."""
    rows = torch.arange(weight_DF.shape[0], device=weight_DF.device) + offset
    columns = torch.arange(weight_DF.shape[1], device=weight_DF.device)
    return mixed((mixed(rows & _WORD)[:, None] + columns) & _WORD)


def rounded(x: Tensor, noise_16: Tensor) -> Tensor:
    """Bfloat16 of x, up or down with probabilities that make it exact on average, by noise in [0, 2^16).

    NaN and infinity stay what they are: the noise may carry a NaN's bits over into infinity or zero.
    """
    x = x.float()
    truncated = ((x.view(torch.int32) + noise_16.int()) & -65536).view(torch.float32)
    return torch.where(x.isnan(), x, truncated).bfloat16()
