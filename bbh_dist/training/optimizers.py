"""Optimisers and learning-rate schedules. A schedule is a function of progress, so it has no state to resume."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from bbh_dist.config import Optimizer
from bbh_dist.factored import SGD, Adam, RMSProp, Rule

_STEP = "step"
_DECAY, _EPS, _MOMENTUM = 0.9, 1e-5, 0.9
_RISE = 0.3
_FIRST, _LAST = 1 / 25, 1e-4 / 25


class DenseOptimizer:
    """The optimiser that an experiment names, for gradients that are stored, at a learning rate `lr` that may change.

    RMSProp has the paper's decay 0.9 and epsilon 1e-5; epsilon is added outside the square root, as torch does.
    The steps are torch's functions. Its classes around them import torch's compiler, two seconds in every process, only
    to mark themselves as not to be compiled.
    """

    def __init__(self, config: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
        self.config, self.parameters, self.lr = config, parameters, config.lr
        self.state: dict[str, dict[str, Tensor]] = {}
        """Of the parameters that have had a gradient, by torch's names."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Step along the gradients, where there are any."""
        names = [name for name, tensor in self.parameters.items() if tensor.grad is not None]
        if not names:
            return
        rule = factored_rule(self.config, self.lr, 1)
        weights: list[Tensor] = [self.parameters[name] for name in names]
        gradients = [tensor.grad for tensor in weights if tensor.grad is not None]
        states = [self.state.get(name) or self._new_state(name, rule) for name in names]
        moments: list[Any] = [[state[name] for state in states] for name in _moments(rule)]
        steps = [state[_STEP] for state in states if _STEP in state]
        no_decay: dict[str, Any] = {"lr": self.lr, "weight_decay": 0.0, "maximize": False}
        if isinstance(rule, Adam):
            means, squares = moments
            beta1, beta2 = rule.betas
            numbers: dict[str, Any] = {"beta1": beta1, "beta2": beta2, "eps": rule.eps}
            adam(weights, gradients, means, squares, [], steps, fused=True, amsgrad=False, **numbers, **no_decay)
        elif isinstance(rule, RMSProp):
            (squares,) = moments
            numbers = {"alpha": rule.decay, "eps": rule.eps, "momentum": 0.0}
            rmsprop(weights, gradients, squares, [], [], steps, centered=False, **numbers, **no_decay)
        elif isinstance(rule, SGD):
            (buffers,) = moments
            numbers = {"momentum": rule.momentum, "dampening": 0.0}
            sgd(weights, gradients, buffers, nesterov=False, **numbers, **no_decay)

    def _new_state(self, name: str, rule: Rule) -> dict[str, Tensor]:
        tensor = self.parameters[name]
        state = {moment: torch.zeros_like(tensor, requires_grad=False) for moment in _moments(rule)}
        if not isinstance(rule, SGD):  # which counts no steps
            # As torch begins: its fused step counts where the weights are, the other one on the CPU.
            state[_STEP] = torch.zeros((), device=tensor.device if isinstance(rule, Adam) else "cpu")
        self.state[name] = state
        return state


def _moments(rule: Rule) -> tuple[str, ...]:
    return *rule.first_moments, *rule.second_moments


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
