"""One's own inputs for a trained network: checked, and taken to what the network was trained on.

They stand as the task's own data do: `toy` x as numbers (N,) or (N, 1); `digits5` pixels from 0 to 16, (N, 8, 8) or
(N, 64); `mnist` bytes (N, 28, 28); `cifar5` bytes (N, 32, 32, 3); of `npz:FILE` as that file has its x_train.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbh_dist.config import DataError
from bbh_dist.tasks import digits, mnist, npz, toy
from bbh_dist.tasks.archive import array_header, read_archive
from bbh_dist.tasks.augmentation import Augmentation

_NAME = "x"


def read_inputs(path: Path) -> np.ndarray:
    """The array `x` of an archive, or the only array that it has.

    Raises:
        DataError: there is none, or the file is no archive.
    """
    arrays = read_archive(path)
    name = next(iter(arrays)) if len(arrays) == 1 else _NAME
    if name not in arrays:
        raise DataError(f"{path}: {_NAME} missing, found {', '.join(sorted(arrays)) or 'no arrays'}")
    array = arrays[name]
    if array.ndim == 0 or len(array) == 0:
        raise DataError(f"{path}: {name} must hold at least one input, got shape {array.shape}")
    return array


def network_inputs(task: str, path: Path, array: np.ndarray) -> Tensor:
    """Inputs (N, ...) of a task's network, of an array (N, ...) that was read from a file.

    Raises:
        DataError: its type, shape or numbers are not those of the task's own data.
    """
    takers: dict[str, Callable[[Path, np.ndarray], Tensor]] = {
        "toy": _toy,
        "digits5": _digits5,
        "mnist": lambda path, array: mnist.scaled(_bytes(path, array, (28, 28))),
        "cifar5": lambda path, array: Augmentation().plain(
            _bytes(path, array, (32, 32, 3)).permute(0, 3, 1, 2).contiguous(), torch.float32
        ),
    }
    if task in takers:
        return takers[task](path, array)
    return _as_in_archive(Path(task.removeprefix("npz:")), path, array)


def _toy(path: Path, array: np.ndarray) -> Tensor:
    if array.shape[1:] not in ((), (1,)):
        raise DataError(f"{path}: x must be numbers (N,) or (N, 1), got shape {array.shape}")
    return toy.scaled(_numbers(path, array).reshape(-1))


def _digits5(path: Path, array: np.ndarray) -> Tensor:
    if array.shape[1:] not in ((8, 8), (64,)):
        raise DataError(f"{path}: x must be images (N, 8, 8) or (N, 64), got shape {array.shape}")
    pixels = _numbers(path, array)
    if pixels.min() < 0 or pixels.max() > digits.LARGEST_PIXEL:
        found = f"{float(pixels.min()):g}..{float(pixels.max()):g}"
        raise DataError(f"{path}: x must hold pixels from 0 to {digits.LARGEST_PIXEL:g}, got {found}")
    return digits.scaled(pixels)


def _as_in_archive(archive: Path, path: Path, array: np.ndarray) -> Tensor:
    shape, dtype = array_header(archive, "x_train")
    if array.shape[1:] != shape[1:] or (array.dtype == np.uint8) != (dtype == np.uint8):
        expected = f"of shape (N, {', '.join(map(str, shape[1:]))}) and {dtype}, as x_train of {archive}"
        raise DataError(f"{path}: x must be {expected}, got {array.dtype} of shape {array.shape}")
    return npz.network_inputs(path, "x", array)


def _bytes(path: Path, array: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    if array.dtype != np.uint8 or array.shape[1:] != shape:
        expected = f"bytes (uint8) of shape (N, {', '.join(map(str, shape))})"
        raise DataError(f"{path}: x must be {expected}, got {array.dtype} of shape {array.shape}")
    return torch.from_numpy(array)


def _numbers(path: Path, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: x must hold numbers, got {array.dtype}")
    return npz.finite(path, "x", array)
