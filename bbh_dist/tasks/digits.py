"""digits5: scikit-learn's bundled 8 x 8 digits. Classes 0-4 are the task, classes 5-9 the outliers; no download.

901 images of the task: 541 training, 180 validation, 180 test. 896 outliers: 448 validation, 448 test.
Source: UCI ML repository, Optical Recognition of Handwritten Digits, test part.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbh_dist.config import DataError
from bbh_dist.tasks.likelihood import Categorical
from bbh_dist.tasks.shifts import Picked, Rotation, Shifts
from bbh_dist.tasks.task import Split, Task, shuffled

CLASSES = 5
LARGEST_PIXEL = 16.0
SHIFTS = Shifts(
    rotations=(Rotation(Picked(0, 3), 90), Rotation(Picked(11, 1), 90), Rotation(Picked(22, 4), 180)),
    mixed=(Picked(22, 4), Picked(0, 3)),
)
"""As the paper's on MNIST, with a 4 for the 6 and the 8."""


def load_digits5() -> Task:
    """The task, pixels in [0, 1], inputs (N, 1, 8, 8)."""
    table = torch.from_numpy(np.loadtxt(_file(), delimiter=",", dtype=np.float32))
    inputs, labels = scaled(table[:, :-1]), table[:, -1].long()
    inside = labels < CLASSES
    train, validation, test = _split("digits5", inputs[inside], labels[inside])
    outliers = inputs[~inside][shuffled("digits5/outliers", int((~inside).sum()))]
    half = len(outliers) // 2
    parts = train, validation, test, outliers[:half], outliers[half:]
    return Task("digits5", Categorical(CLASSES), *parts, pixel_range=(0.0, 1.0), shifts=SHIFTS)


def scaled(pixels: Tensor) -> Tensor:
    """Inputs (N, 1, 8, 8) of images (N, ...) with pixels from 0 to 16."""
    return pixels.div(LARGEST_PIXEL).reshape(-1, 1, 8, 8)


def _file() -> Path:
    """Scikit-learn's table: a row of 64 pixels and a label each. Its `load_digits` would take 2 s to be imported.

    Raises:
        DataError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("digits5: its images come with scikit-learn, which is not installed")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _split(name: str, inputs: Tensor, labels: Tensor) -> tuple[Split, Split, Split]:
    order = shuffled(name, len(inputs))
    fifth = len(inputs) // 5
    parts = order.split([len(inputs) - 2 * fifth, fifth, fifth])
    train, validation, test = (Split(inputs[part], labels[part]) for part in parts)
    return train, validation, test
