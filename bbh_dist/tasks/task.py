"""What a task is: splits as tensors, and outliers that no model is trained on."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bbh_dist.noise import keyed_generator
from bbh_dist.tasks.shifts import Shifts


@dataclass(frozen=True)
class Split:
    """Inputs (N, ...) of floats and class labels (N,)."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Split":
        """The split on a device, inputs in the given precision."""
        return Split(self.inputs.to(device, dtype), self.labels.to(device))


@dataclass(frozen=True)
class Task:
    """A classification task. Settings are chosen on `validation`; `test` is reported and nothing else.

    The outliers (N, ...) belong to no class; their validation and test parts are disjoint.
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    outliers_validation: Tensor | None = None
    outliers_test: Tensor | None = None
    pixel_range: tuple[float, float] | None = None
    """Smallest and largest value of a pixel, where the inputs are images that have them: attacks stay inside."""
    shifts: Shifts | None = None
    """Test images that are turned and mixed, where some are chosen."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train.inputs.shape[1:])

    def to(self, device: torch.device, dtype: torch.dtype) -> "Task":
        """The task with all its data on a device, inputs in the given precision."""
        return replace(
            self,
            train=self.train.to(device, dtype),
            validation=self.validation.to(device, dtype),
            test=self.test.to(device, dtype),
            outliers_validation=_moved(self.outliers_validation, device, dtype),
            outliers_test=_moved(self.outliers_test, device, dtype),
        )


def _moved(inputs: Tensor | None, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    return None if inputs is None else inputs.to(device, dtype)


def shuffled(name: str, count: int) -> Tensor:
    """A permutation of 0..count-1 that belongs to the task, the same for every run and seed."""
    return torch.randperm(count, generator=keyed_generator("split", name))
