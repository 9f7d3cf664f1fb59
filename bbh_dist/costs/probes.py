"""Training steps of small hypernetworks, of which this machine shows what shapes do not tell."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bbh_dist.config import Experiment
from bbh_dist.costs.measurements import seconds
from bbh_dist.costs.step import StepCosts, step_costs
from bbh_dist.tasks import Categorical, Split, Task
from bbh_dist.training import Trainer

_CLASSES = 10
_STEPS_FOR_MEMORY = 3


class Probe:
    """A trainer of BbH on inputs that are all the same."""

    def __init__(self, network: str, generator: dict[str, Any], input_shape: Sequence[int], batch_size: int) -> None:
        method = {"name": "bbh", "generator": generator}
        settings = {"task": "mnist", "network": network, "method": method, "batch_size": batch_size}
        self.experiment, self.input_shape = Experiment.model_validate(settings), input_shape
        split = Split(torch.ones(batch_size, *input_shape), torch.arange(batch_size) % _CLASSES)
        self.trainer = Trainer(self.experiment, Task("probe", Categorical(_CLASSES), split, split, split))
        self._batch, self._numbers = torch.arange(batch_size), itertools.count()

    def step(self) -> None:
        """Take the next step."""
        self.trainer.step(next(self._numbers), self._batch)

    def costs(self) -> StepCosts:
        """What a step costs by its shapes."""
        return step_costs(self.experiment, self.input_shape, _CLASSES, workers=1)


def overhead_bytes() -> int:
    """Memory of this process but for the tensors of a step; 0 where the system does not say.

    It is what the libraries are and work with, and what lies unused between tensors: that of BbH on LeNet here.
    """
    probe = Probe("lenet", {"kind": "single"}, (1, 28, 28), batch_size=100)
    for _ in range(_STEPS_FOR_MEMORY):
        probe.step()
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
    return resident - probe.costs().peak_bytes  # counted last, as what counts takes memory, too


def operation_seconds() -> float:
    """Per operation that is counted, of a step with hardly any numbers: Python, autograd, and the call."""
    probe = Probe("mlp:2", {"kind": "sliced", "hidden": [4, 4]}, (2,), batch_size=4)
    return median(seconds(probe.step)) / sum(operation.calls for operation in probe.costs().operations)
