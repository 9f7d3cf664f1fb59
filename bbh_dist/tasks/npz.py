"""npz:FILE: one's own data, a NumPy archive of x_train, y_train, x_test, y_test as Keras lays them out.

Integer labels y make a classification, floats a regression: there an optional scalar `noise_stddev` is the standard
deviation of the noise in y, by default sqrt(0.1) of that of y_train, which a model leaves that explains nine tenths of
the variance. The network's output is taken to y by the mean and standard deviation of y_train.
Optional: x_val and y_val (otherwise a fixed random tenth of the training data), x_outlier (split in halves; of a
classification only). Images are (N, H, W) or (N, H, W, C) and become (N, C, H, W); other inputs are (N, F), taken as
they are. Bytes are divided by 255.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbh_dist.config import DataError
from bbh_dist.tasks.archive import read_archive
from bbh_dist.tasks.likelihood import Categorical, Gaussian, Likelihood
from bbh_dist.tasks.task import Split, Task, shuffled

_REQUIRED = ("x_train", "y_train", "x_test", "y_test")
_INPUTS = ("x_train", "x_val", "x_test", "x_outlier")
_NOISE = "noise_stddev"
_NOISE_SHARE = math.sqrt(0.1)


def load_npz(path: Path) -> Task:
    """The task of an archive.

    Raises:
        DataError: the file or an array is missing, or shapes, types, values or labels are not what they must be.
    """
    arrays = read_archive(path)
    missing = [name for name in _REQUIRED if name not in arrays]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing, found {', '.join(sorted(arrays)) or 'no arrays'}")
    if ("x_val" in arrays) != ("y_val" in arrays):
        raise DataError(f"{path}: x_val and y_val must stand together")
    kind = "f" if arrays["y_train"].dtype.kind == "f" else "iu"
    train, test = _split(path, arrays, "train", kind), _split(path, arrays, "test", kind)
    likelihood = _likelihood(path, arrays, train.labels)  # before a tenth is held out, which may take a whole class
    if "x_val" in arrays:
        validation = _split(path, arrays, "val", kind)
    else:
        train, validation = _hold_out(path, train)
    outliers = _outliers(path, arrays, likelihood)
    pixels = _pixel_range(arrays["x_test"]) if likelihood.kind == "classification" else None
    task = Task(f"npz:{path}", likelihood, train, validation, test, outliers[0], outliers[1], pixel_range=pixels)
    _check(path, task)
    _check_scales(path, arrays)
    return task


def _check_scales(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Refuse bytes, which are divided by 255, beside other numbers, which are not."""
    are_bytes = arrays["x_train"].dtype == np.uint8
    for name in _INPUTS:
        array = arrays.get(name, arrays["x_train"])
        if (array.dtype == np.uint8) != are_bytes:
            rule = f"must {'' if are_bytes else 'not '}hold bytes, as x_train does{'' if are_bytes else ' not'}"
            raise DataError(f"{path}: {name} {rule}: bytes are divided by 255, got {array.dtype}")


def _split(path: Path, arrays: dict[str, np.ndarray], part: str, kind: str) -> Split:
    """A part of the data; `kind` has the letters of NumPy's kinds that labels may be of."""
    inputs = _inputs(path, f"x_{part}", arrays[f"x_{part}"])
    labels = arrays[f"y_{part}"]
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in kind or len(labels) != len(inputs):
        what = "float targets, as y_train does" if kind == "f" else "integer labels"
        raise DataError(f"{path}: y_{part} must hold {len(inputs)} {what}, got {labels.dtype} of shape {labels.shape}")
    if kind == "f":
        return Split(inputs, finite(path, f"y_{part}", labels))
    return Split(inputs, torch.from_numpy(labels.astype(np.int64)))


def _inputs(path: Path, name: str, array: np.ndarray) -> Tensor:
    if array.ndim not in (2, 3, 4) or array.dtype.kind not in "uif" or array.shape[0] < 2 or array.size == 0:
        raise DataError(
            f"{path}: {name} must hold at least 2 inputs of numbers, (N, F), (N, H, W) or (N, H, W, C), "
            f"got {array.dtype} of shape {array.shape}"
        )
    return network_inputs(path, name, array)


def network_inputs(path: Path, name: str, array: np.ndarray) -> Tensor:
    """Inputs of a network, (N, F) or (N, C, H, W), of an array of numbers; bytes are divided by 255.

    Raises:
        DataError: a number is not finite.
    """
    inputs = finite(path, name, array)
    if array.dtype == np.uint8:
        inputs = inputs / 255
    if array.ndim == 3:
        return inputs.unsqueeze(1)
    return inputs.permute(0, 3, 1, 2).contiguous() if array.ndim == 4 else inputs


def finite(path: Path, name: str, array: np.ndarray) -> Tensor:
    """The numbers in single precision.

    Raises:
        DataError: one is not finite there.
    """
    with np.errstate(over="ignore"):  # what overflows is refused below
        numbers = torch.from_numpy(array.astype(np.float32))
    if not numbers.isfinite().all():
        raise DataError(f"{path}: {name} must hold finite numbers only")
    return numbers


def _likelihood(path: Path, arrays: dict[str, np.ndarray], labels: Tensor) -> Likelihood:
    if labels.is_floating_point():
        return _gaussian(path, arrays, labels)
    if _NOISE in arrays:
        raise DataError(f"{path}: {_NOISE} stands beside integer labels, which have no such noise; make y floats")
    return Categorical(_classes(path, labels))


def _gaussian(path: Path, arrays: dict[str, np.ndarray], targets: Tensor) -> Gaussian:
    spread = float(targets.double().std(correction=0))
    if not spread > 0:
        raise DataError(f"{path}: y_train must hold targets that differ")
    given = arrays.get(_NOISE, np.array(_NOISE_SHARE * spread))
    if given.shape != () or given.dtype.kind not in "uif" or not 0 < float(given) < math.inf:
        shown = given if given.shape == () else f"{given.dtype} of shape {given.shape}"
        raise DataError(f"{path}: {_NOISE} must be one positive number, got {shown}")
    return Gaussian(float(given), float(targets.double().mean()), spread)


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


def _outliers(
    path: Path, arrays: dict[str, np.ndarray], likelihood: Likelihood
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Two halves, if there are any."""
    if "x_outlier" not in arrays:
        return None, None
    if likelihood.kind == "regression":
        raise DataError(f"{path}: x_outlier stands beside float targets; outliers are measured by entropy, of classes")
    inputs = _inputs(path, "x_outlier", arrays["x_outlier"])
    inputs = inputs[shuffled("npz/outliers", len(inputs))]
    return inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]


def _check(path: Path, task: Task) -> None:
    for name, split in (("val", task.validation), ("test", task.test)) if task.classes else ():
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= task.classes:
            raise DataError(f"{path}: y_{name} must lie in 0..{task.classes - 1} as in training, got {low}..{high}")
    others = [task.validation.inputs, task.test.inputs]
    others += [part for part in (task.outliers_validation, task.outliers_test) if part is not None]
    for inputs in others:
        if tuple(inputs.shape[1:]) != task.input_shape:
            shape = tuple(inputs.shape[1:])
            raise DataError(f"{path}: all inputs must have the training data's shape {task.input_shape}, got {shape}")
