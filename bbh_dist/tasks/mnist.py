"""mnist: handwritten digits, with notMNIST (letters A-J in the same format) as outliers.

55,000 training images, 5,000 validation (the first 5,000 of the training file), 10,000 test; of notMNIST's 10,000 test
images a fixed random half for validation, the other for test. Pixels in [0, 1], inputs (N, 1, 28, 28).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bbh_dist.config import DataError
from bbh_dist.tasks.known import file_sha256, reading, tell_unknown
from bbh_dist.tasks.likelihood import Categorical
from bbh_dist.tasks.shifts import Picked, Rotation, Shifts
from bbh_dist.tasks.task import Split, Task, shuffled
from bbh_dist.tasks.torchvision_import import import_torchvision

_VALIDATION = 5_000
_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""SHA-256 of MNIST's four files, unpacked."""
SHIFTS = Shifts(
    rotations=(Rotation(Picked(270, 3), 90), Rotation(Picked(202, 1), 90), Rotation(Picked(217, 6), 180)),
    mixed=(Picked(391, 8), Picked(270, 3)),
)
"""The paper's."""
_OUTLIERS = "t10k-images-idx3-ubyte"
_OUTLIER_IMAGES = 10_000
_OUTLIER_BYTES = 16 + _OUTLIER_IMAGES * 28 * 28
_OUTLIER_SHA256 = "8e7f38ae95cc8f48e0986175ffc9137e5007ebcf3d8fdf6656c904eb9dab198b"
"""Of the file that this project's tables were made with; notMNIST's authors published none in this format."""


def load_mnist(root: Path) -> Task:
    """The task from ROOT/MNIST/raw and ROOT/notMNIST/raw; MNIST is downloaded if it is absent.

    Raises:
        DataError: files are missing and cannot be downloaded, cannot be read, or are not the standard ones.
    """
    import_torchvision()
    letters, raw = root / "notMNIST" / "raw", root / "MNIST" / "raw"
    with reading(letters / _OUTLIERS):
        outliers = _outliers(letters)
    with reading(raw):
        _ensure_mnist(root, raw)
    train, test = _split(raw, "train"), _split(raw, "t10k")
    inputs, labels = train.inputs, train.labels
    return Task(
        "mnist",
        Categorical(10),
        Split(inputs[_VALIDATION:], labels[_VALIDATION:]),
        Split(inputs[:_VALIDATION], labels[:_VALIDATION]),
        test,
        *outliers,
        pixel_range=(0.0, 1.0),
        shifts=SHIFTS,
    )


def scaled(pixels: Tensor) -> Tensor:
    """Inputs (N, 1, 28, 28) of bytes (N, 28, 28)."""
    return pixels.to(torch.float32).div(255).unsqueeze(1)


def _split(raw: Path, part: str) -> Split:
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images = _verified(raw / f"{part}-images-idx3-ubyte", read_image_file)
    return Split(scaled(images), _verified(raw / f"{part}-labels-idx1-ubyte", read_label_file))


def _verified(path: Path, read: Callable[[str], Tensor]) -> Tensor:
    """What `read` finds in one of MNIST's files.

    Raises:
        DataError: it cannot be read, or is not the standard one.
    """
    with reading(path):
        found, expected = file_sha256(path), _FILES[path.name]
        if found != expected:
            raise DataError(f"{path}: not MNIST's file: sha256 must be {expected}, got {found}")
        return read(str(path))


def _ensure_mnist(root: Path, raw: Path) -> None:
    missing = [name for name in _FILES if not (raw / name).is_file()]
    if missing:
        _download(root, raw, missing)


def _download(root: Path, raw: Path, missing: list[str]) -> None:
    from torchvision.datasets import MNIST

    dataset = MNIST.__new__(MNIST)  # its constructor takes ROOT/MNIST/processed instead, unchecked, where that stands
    dataset.root = str(root)
    try:
        dataset.download()
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{raw}: MNIST's files are not there ({', '.join(missing)}) and could not be downloaded ({reason}); "
            "put them there, or name their place by --data or BBH_DATA"
        ) from error


def _outliers(raw: Path) -> tuple[Tensor, Tensor]:
    """notMNIST's validation and test halves; nobody hosts it in this format, so it is never downloaded."""
    path = raw / _OUTLIERS
    if not path.is_file():
        raise DataError(
            f"{raw}: notMNIST's images are not there ({_OUTLIERS}); they are MNIST's outliers and have to be put there "
            "by hand, or name their place by --data or BBH_DATA"
        )
    if (size := path.stat().st_size) != _OUTLIER_BYTES:  # before anything is read, however much it is
        rule = f"must hold {_OUTLIER_IMAGES} images of 28 x 28 bytes behind a header of 16"
        raise DataError(f"{path}: {rule}, {_OUTLIER_BYTES} bytes, got {size}")
    from torchvision.datasets.mnist import read_image_file

    try:
        images = read_image_file(str(path))
    except (ValueError, AssertionError, TypeError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable IDX file of images") from error
    if images.dtype != torch.uint8 or images.shape != (_OUTLIER_IMAGES, 28, 28):
        raise DataError(f"{path}: must hold {_OUTLIER_IMAGES} images of 28 x 28 bytes, got {tuple(images.shape)}")
    tell_unknown(path, file_sha256(path), _OUTLIER_SHA256)
    images = scaled(images)[shuffled("notmnist", len(images))]
    half = len(images) // 2
    return images[:half], images[half:]
