"""Which test images of a task are turned and mixed to see how its predictions move."""

from dataclasses import dataclass

from torch import Tensor

from bbh_dist.config import DataError


@dataclass(frozen=True)
class Picked:
    """A test image by its index, and the label that it must have."""

    index: int
    label: int


@dataclass(frozen=True)
class Rotation:
    """An image and the largest angle by which it is turned, both ways."""

    image: Picked
    most_degrees: int


@dataclass(frozen=True)
class Shifts:
    """The series of a task: rotations of some images, and mixes of two."""

    rotations: tuple[Rotation, ...]
    mixed: tuple[Picked, Picked]

    def check(self, labels: Tensor) -> None:
        """See that the indices lead to the images that are meant.

        Raises:
            DataError: the test labels (N,) are others, or too few.
        """
        for picked in (*(rotation.image for rotation in self.rotations), *self.mixed):
            found = int(labels[picked.index]) if picked.index < len(labels) else None
            if found != picked.label:
                found_text = f"there are {len(labels)} images" if found is None else f"got {found}"
                raise DataError(f"test image {picked.index} must have the label {picked.label}, {found_text}")
