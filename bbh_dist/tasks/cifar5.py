"""cifar5: classes 0-4 of CIFAR-10 (aeroplane, car, bird, cat, deer); the test images of the others are outliers.

22,500 training images, a fixed random tenth of the original's 25,000 is validation; 5,000 test; of the 5,000 test
images of classes 5-9 a fixed random half for validation, the other for test. Training images are bytes (N, 3, 32, 32),
augmented in every step; the others are central crops (N, 3, 24, 24), standardised image by image.
"""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bbh_dist.config import DataError
from bbh_dist.tasks.archive import read_archive
from bbh_dist.tasks.augmentation import Augmentation
from bbh_dist.tasks.known import tell_unknown
from bbh_dist.tasks.likelihood import Categorical
from bbh_dist.tasks.task import Split, Task, shuffled
from bbh_dist.tasks.torchvision_import import import_torchvision

CLASSES = 5
FILE = "cifar5.npz"
VALIDATION = 2_500
_ALL_CLASSES = 10
_SIDE = 32
_PER_CLASS = {"train": 5_000, "test": 1_000}
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_SHA256 = "0d00e301b0e4e4443111119cbf605a3c2729981e28a62cd30eb6c5b646449325"
"""Of the arrays that this project's tables were made with."""


def load_cifar5(root: Path) -> Task:
    """The task from ROOT/cifar5.npz: training images of classes 0-4 and all test images, bytes (N, H, W, C).

    Where it is absent, CIFAR-10 is downloaded to ROOT.

    Raises:
        DataError: the file is missing and cannot be downloaded, or does not hold what it should.
    """
    path = root / FILE
    arrays = read_archive(path) if path.exists() else _downloaded(root, path)
    _check(path, arrays)
    tell_unknown(path, _sha256(arrays), _SHA256)
    augmentation = Augmentation()
    train, test = (_images(arrays[f"x_{part}"]) for part in ("train", "test"))
    train_labels, test_labels = (_labels(arrays[f"y_{part}"]) for part in ("train", "test"))
    order = shuffled("cifar5", len(train))
    held, kept = order[:VALIDATION], order[VALIDATION:]
    inside = test_labels < CLASSES
    outliers = test[~inside][shuffled("cifar5/outliers", int((~inside).sum()))]
    half = len(outliers) // 2
    return Task(
        "cifar5",
        Categorical(CLASSES),
        Split(train[kept], train_labels[kept]),
        Split(augmentation.plain(train[held], torch.float32), train_labels[held]),
        Split(augmentation.plain(test[inside], torch.float32), test_labels[inside]),
        augmentation.plain(outliers[:half], torch.float32),
        augmentation.plain(outliers[half:], torch.float32),
        augmentation,
    )


def _sha256(arrays: dict[str, np.ndarray]) -> str:
    """Of what the arrays hold, however the archive is packed and labels are stored."""
    digest = hashlib.sha256()
    for name in _ARRAYS:
        digest.update(np.ascontiguousarray(arrays[name]).astype(np.uint8, copy=False).tobytes())
    return digest.hexdigest()


def _images(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def _labels(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """See that the archive holds so many bytes of images, and of every class as many as CIFAR-10 has."""
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing, found {', '.join(sorted(arrays)) or 'no arrays'}")
    for part, classes in (("train", CLASSES), ("test", _ALL_CLASSES)):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        shape = (classes * _PER_CLASS[part], _SIDE, _SIDE, 3)
        if images.dtype != np.uint8 or images.shape != shape:
            raise DataError(f"{path}: x_{part} must be bytes {shape}, got {images.dtype} of shape {images.shape}")
        expected = {label: _PER_CLASS[part] for label in range(classes)}
        if labels.dtype.kind not in "iu" or labels.size != shape[0] or Counter(labels.reshape(-1).tolist()) != expected:
            raise DataError(f"{path}: y_{part} must hold {_PER_CLASS[part]} labels of each class 0..{classes - 1}")


def _downloaded(root: Path, path: Path) -> dict[str, np.ndarray]:
    """The arrays from torchvision's CIFAR-10, which checks what it has downloaded."""
    import_torchvision()
    from torchvision.datasets import CIFAR10

    try:
        train, test = (CIFAR10(str(root), train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: no such file, and CIFAR-10 could not be downloaded ({reason}); put it there, or name its place "
            "by --data or BBH_DATA"
        ) from error
    labels = np.array(train.targets)
    inside = labels < CLASSES
    return {
        "x_train": train.data[inside],
        "y_train": labels[inside],
        "x_test": test.data,
        "y_test": np.array(test.targets),
    }
