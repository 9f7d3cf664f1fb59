"""What is known of a task without loading it: shapes and numbers, for planning."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bbh_dist.config import DataError
from bbh_dist.tasks.archive import array_header, check_size


@dataclass(frozen=True)
class TaskShape:
    """Shape of one input, outputs of the network (one is a regression), and training examples where they are known."""

    input_shape: tuple[int, ...]
    outputs: int
    examples: int | None = None


_BUILT_IN = {
    "toy": TaskShape((1,), 1, 20),
    "digits5": TaskShape((1, 8, 8), 5, 541),
    "mnist": TaskShape((1, 28, 28), 10, 55_000),
    "cifar5": TaskShape((3, 24, 24), 5, 22_500),
}


def task_shape(name: str) -> TaskShape:
    """The shape of the task that an experiment names. Of an archive the header and the labels of training are read.

    Raises:
        DataError: the archive is missing or not what it should be.
    """
    return _BUILT_IN.get(name) or _of_archive(Path(name.removeprefix("npz:")))


def _of_archive(path: Path) -> TaskShape:
    try:
        check_size(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            with archive.open("y_train.npy") as file:
                labels = np.lib.format.read_array(file, allow_pickle=False)
            shape, _ = array_header(path, "x_train")
            outputs = 1 if labels.dtype.kind == "f" else int(labels.max()) + 1
            return TaskShape(_input_shape(shape), outputs, _training(shape[0], "x_val.npy" in names))
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file; to plan without data, give its shape by --input and --classes"
        ) from error
    except DataError:
        raise
    except Exception as error:  # of a damaged file NumPy, zipfile, zlib and Python's parser raise a dozen kinds
        raise DataError(f"{path}: not a readable archive of a task: {' '.join(str(error).split())}") from error


def _input_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Images stand channels last, or without channels, in the file."""
    if len(shape) not in (2, 3, 4):
        raise ValueError(f"x_train must have 2, 3 or 4 axes, got {shape}")
    return {2: shape[1:], 3: (1, *shape[1:]), 4: (*shape[3:], *shape[1:3])}[len(shape)]


def _training(examples: int, has_validation: bool) -> int:
    """A tenth is held out where the archive has no validation part."""
    return examples if has_validation else examples - examples // 10
