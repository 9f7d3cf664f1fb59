"""npz:FILE: one's own data, a NumPy archive of x_train, y_train, x_test, y_test as Keras lays them out.

Optional: x_val and y_val (otherwise a fixed random tenth of the training data), x_outlier (split in halves).
Images are (N, H, W) or (N, H, W, C) and become (N, C, H, W); other inputs are (N, F). Bytes are divided by 255.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbh_dist.config import DataError
from bbh_dist.tasks.task import Split, Task, shuffled

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path) -> Task:
    """The task of an archive.

    Raises:
        DataError: the file or an array is missing, or shapes, types, values or labels are not what they must be.
    """
    arrays = _read(path)
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing, found {', '.join(sorted(arrays)) or 'no arrays'}")
    if ("x_val" in arrays) != ("y_val" in arrays):
        raise DataError(f"{path}: x_val and y_val must stand together")
    train, test = _split(path, arrays, "train"), _split(path, arrays, "test")
    classes = _classes(path, train.labels)  # before a tenth is held out, which may take all examples of a class
    if "x_val" in arrays:
        validation = _split(path, arrays, "val")
    else:
        train, validation = _hold_out(path, train)
    outliers: tuple[Tensor | None, Tensor | None] = (None, None)
    if "x_outlier" in arrays:
        inputs = _inputs(path, "x_outlier", arrays["x_outlier"])
        inputs = inputs[shuffled("npz/outliers", len(inputs))]
        outliers = (inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :])
    task = Task(f"npz:{path}", classes, train, validation, test, *outliers, pixel_range=_pixel_range(arrays["x_test"]))
    _check(path, task)
    return task


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded as archive:
                return {name: np.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # of a damaged file NumPy, zipfile, zlib and Python's parser raise a dozen kinds
        raise DataError(f"{path}: not a readable .npz archive: {' '.join(str(error).split())}") from error
    raise DataError(f"{path}: must be an .npz archive, got a single array")


def _split(path: Path, arrays: dict[str, np.ndarray], part: str) -> Split:
    inputs = _inputs(path, f"x_{part}", arrays[f"x_{part}"])
    labels = arrays[f"y_{part}"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(inputs):
        raise DataError(
            f"{path}: y_{part} must hold {len(inputs)} integer labels, got {labels.dtype} of shape {labels.shape}"
        )
    return Split(inputs, torch.from_numpy(labels.astype(np.int64)))


def _inputs(path: Path, name: str, array: np.ndarray) -> Tensor:
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "uif" or array.shape[0] < 2 or array.size == 0:
        raise DataError(
            f"{path}: {name} must hold at least 2 inputs of numbers, (N, F), (N, H, W) or (N, H, W, C), "
            f"got {array.dtype} of shape {array.shape}"
        )
    with np.errstate(over="ignore"):  # what overflows is refused below
        inputs = torch.from_numpy(array.astype(np.float32))
    if array.dtype == np.uint8:
        inputs = inputs / 255
    if not inputs.isfinite().all():
        raise DataError(f"{path}: {name} must hold finite numbers only")
    if array.ndim == 3:
        return inputs.unsqueeze(1)
    return inputs.permute(0, 3, 1, 2).contiguous() if array.ndim == 4 else inputs


def _pixel_range(array: np.ndarray) -> tuple[float, float] | None:
    """Of images of bytes; others may have been standardised in any way."""
    return (0.0, 1.0) if array.ndim > 2 and array.dtype == np.uint8 else None


def _classes(path: Path, labels: Tensor) -> int:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or not 1 <= high < len(labels):
        rule = f"at least 2 classes, numbered from 0, no more than its {len(labels)} examples"
        raise DataError(f"{path}: y_train must hold {rule}, got labels {low}..{high}")
    return high + 1


def _hold_out(path: Path, train: Split) -> tuple[Split, Split]:
    if len(train) < 10:
        raise DataError(f"{path}: x_train must hold at least 10 inputs to hold a tenth out, got {len(train)}")
    order = shuffled("npz", len(train))
    held, kept = order[: len(train) // 10], order[len(train) // 10 :]
    return Split(train.inputs[kept], train.labels[kept]), Split(train.inputs[held], train.labels[held])


def _check(path: Path, task: Task) -> None:
    for name, split in (("val", task.validation), ("test", task.test)):
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= task.classes:
            raise DataError(f"{path}: y_{name} must lie in 0..{task.classes - 1} as in training, got {low}..{high}")
    others = [task.validation.inputs, task.test.inputs]
    others += [part for part in (task.outliers_validation, task.outliers_test) if part is not None]
    for inputs in others:
        if tuple(inputs.shape[1:]) != task.input_shape:
            shape = tuple(inputs.shape[1:])
            raise DataError(f"{path}: all inputs must have the training data's shape {task.input_shape}, got {shape}")
