"""Optimisers and learning-rate schedules. A schedule is a function of progress, so it has no state to resume."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from bbh_dist.config import Optimizer
from bbh_dist.factored import SGD, Adam, RMSProp, Rule

_DECAY, _EPS, _MOMENTUM = 0.9, 1e-5, 0.9
_RISE = 0.3
_FIRST, _LAST = 1 / 25, 1e-4 / 25


def build_optimizer(config: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that an experiment names.

    RMSProp has the paper's decay 0.9 and epsilon 1e-5; epsilon is added outside the square root, as torch does.
    """
    if config.name == "adam":
        return torch.optim.Adam(parameters, lr=config.lr, fused=True)
    if config.name == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=config.lr, alpha=_DECAY, eps=_EPS)
    return torch.optim.SGD(parameters, lr=config.lr, momentum=_MOMENTUM)


def factored_rule(config: Optimizer, lr: float, step: int) -> Rule:
    """The same optimiser's step, counted from 1, for gradients that are given as factors."""
    if config.name == "adam":
        return Adam(lr, step)
    if config.name == "rmsprop":
        return RMSProp(lr, step, decay=_DECAY, eps=_EPS)
    return SGD(lr, step, momentum=_MOMENTUM)


def schedule_factor(schedule: str, progress: float) -> float:
    """Factor on the learning rate at a progress in [0, 1) of the run.

    `cosine` falls from 1 to 0; `one_cycle` rises from 1/25 to 1 over the first 30 % and falls to 4e-6, both as half a
    cosine wave (Smith & Topin 2018; torch's factors, momentum stays as it is).
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return _wave(1.0, 0.0, progress)
    if progress < _RISE:
        return _wave(_FIRST, 1.0, progress / _RISE)
    return _wave(1.0, _LAST, (progress - _RISE) / (1 - _RISE))


def _wave(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
