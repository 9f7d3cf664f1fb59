"""What a task is: splits as tensors, the likelihood of their labels, and outliers that no model is trained on."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bbh_dist.noise import keyed_generator
from bbh_dist.tasks.augmentation import Augmentation
from bbh_dist.tasks.likelihood import Categorical, Likelihood
from bbh_dist.tasks.shifts import Shifts


@dataclass(frozen=True)
class Split:
    """Inputs (N, ...), and labels (N,): integers for classes, floats for numbers.

    Inputs are floats; of training data that are augmented they may be bytes, which the augmentation reads.
    """

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Split":
        """The split on a device, floats in the given precision."""
        return Split(_moved(self.inputs, device, dtype), _moved(self.labels, device, dtype))


@dataclass(frozen=True)
class Curve:
    """A function of one number that a regression learns, on a grid of G points, for the figure of a run."""

    x: Tensor
    """(G,), in the units of the axis."""
    inputs: Tensor
    """(G, 1), as the network gets them."""
    truth: Tensor
    """(G,): the true function, without noise."""
    train_x: Tensor
    """(N,): the training inputs in the units of the axis."""


@dataclass(frozen=True)
class Task:
    """A classification or regression. Settings are chosen on `validation`; `test` is reported and nothing else.

    The outliers (N, ...) belong to no class; their validation and test parts are disjoint.
    """

    name: str
    likelihood: Likelihood
    train: Split
    validation: Split
    test: Split
    outliers_validation: Tensor | None = None
    outliers_test: Tensor | None = None
    augmentation: Augmentation | None = None
    """What training inputs go through in every step."""
    curve: Curve | None = None
    pixel_range: tuple[float, float] | None = None
    """Smallest and largest value of a pixel, where the inputs are images that have them: attacks stay inside."""
    shifts: Shifts | None = None
    """Test images that are turned and mixed, where some are chosen."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input of the network."""
        return tuple(self.train.inputs.shape[1:]) if self.augmentation is None else self.augmentation.shape

    @property
    def outputs(self) -> int:
        """Outputs of the network."""
        return self.likelihood.outputs

    @property
    def classes(self) -> int:
        """Classes that labels may have; 0 for a regression."""
        return self.likelihood.classes if isinstance(self.likelihood, Categorical) else 0

    def training_inputs(self, indices: Tensor, seed: int, epoch: int, members: range = range(1)) -> Tensor:
        """Inputs (B, ...) of training examples (B,) as an epoch of a run sees them, whoever asks for them.

        (M, B, ...) of (M, B), the examples of each of M members of an ensemble.
        """
        inputs = self.train.inputs[indices]
        if self.augmentation is None:
            return inputs
        images, rows = inputs.flatten(0, indices.dim() - 1), indices.view(len(members), -1)
        dtype = self.test.inputs.dtype
        changed = self.augmentation.augmented(images, rows, len(self.train), seed, epoch, dtype, members)
        return changed.unflatten(0, indices.shape)

    def reference_inputs(self, most: int) -> Tensor:
        """At most so many training inputs, always the same, as inputs of a test are: not augmented."""
        chosen = shuffled("reference", len(self.train))[:most].to(self.train.inputs.device)
        inputs = self.train.inputs[chosen]
        return inputs if self.augmentation is None else self.augmentation.plain(inputs, self.test.inputs.dtype)

    def to(self, device: torch.device, dtype: torch.dtype) -> "Task":
        """The task with all its data on a device, floats in the given precision."""
        return replace(
            self,
            train=self.train.to(device, dtype),
            validation=self.validation.to(device, dtype),
            test=self.test.to(device, dtype),
            outliers_validation=_moved_if_any(self.outliers_validation, device, dtype),
            outliers_test=_moved_if_any(self.outliers_test, device, dtype),
        )


def _moved(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return tensor.to(device, dtype if tensor.is_floating_point() else None)


def _moved_if_any(inputs: Tensor | None, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    return None if inputs is None else _moved(inputs, device, dtype)


def shuffled(name: str, count: int) -> Tensor:
    """A permutation of 0..count-1 that belongs to the task, the same for every run and seed."""
    return torch.randperm(count, generator=keyed_generator("split", name))
