"""CIFAR5: the real file where it lies, and what is said where it is missing or is not what it should be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folder import DATA

from bbh_dist.tasks import DataError, Task, cifar5, load_task
from bbh_dist.tasks.archive import read_archive
from bbh_dist.tasks.shapes import TaskShape, task_shape
from bbh_dist.tasks.torchvision_import import import_torchvision

needs_data = pytest.mark.skipif(not (DATA / cifar5.FILE).is_file(), reason=f"no {cifar5.FILE} under {DATA}")


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("cifar5", DATA)


@needs_data
def test_sizes_classes_and_ranges(task: Task) -> None:
    assert task.outliers_validation is not None
    assert task.outliers_test is not None
    assert [len(task.train), len(task.validation), len(task.test)] == [22_500, 2_500, 5_000]
    assert [len(task.outliers_validation), len(task.outliers_test)] == [2_500, 2_500]
    assert TaskShape(task.input_shape, task.classes, len(task.train)) == task_shape("cifar5")
    assert (task.train.labels.bincount() + task.validation.labels.bincount()).tolist() == [5_000] * 5
    assert task.test.labels.bincount().tolist() == [1_000] * 5
    for inputs in (task.validation.inputs, task.test.inputs, task.outliers_test):
        assert inputs.shape[1:] == (3, 24, 24)
        assert inputs.mean((1, 2, 3)).abs().max() < 1e-4
        assert (inputs.std((1, 2, 3), correction=0) - 1).abs().max() < 1e-3


@needs_data
def test_no_image_is_in_two_parts(task: Task) -> None:
    """By the sum of each image's central crop times fixed random numbers; CIFAR-10 itself repeats a few images."""
    weights = torch.randn(3 * 24 * 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert task.augmentation is not None
    train = task.augmentation.plain(task.train.inputs[:2_000], torch.float32)
    parts = [train, task.validation.inputs, task.test.inputs, task.outliers_validation, task.outliers_test]
    sums = torch.cat([part.flatten(1).double() @ weights for part in parts if part is not None])
    assert len(sums.round(decimals=6).unique()) >= len(sums) - 10


@needs_data
def test_the_tables_images_are_known() -> None:
    assert cifar5._sha256(read_archive(DATA / cifar5.FILE)) == cifar5._SHA256


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    """An archive of black images that takes no memory."""
    black = np.zeros((), np.uint8)
    result = {
        "x_train": np.broadcast_to(black, (25_000, 32, 32, 3)),
        "y_train": (np.arange(25_000) % 5).astype(np.uint8),
        "x_test": np.broadcast_to(black, (10_000, 32, 32, 3)),
        "y_test": np.arange(10_000)[:, None] % 10,
    }
    return {name: array for name, array in {**result, **changes}.items() if array is not None}


BAD = {
    "missing array": (arrays(y_test=None), "y_test missing, found x_test, x_train, y_train"),
    "channels first": (
        arrays(x_train=np.broadcast_to(np.zeros((), np.uint8), (25_000, 3, 32, 32))),
        "x_train must be bytes (25000, 32, 32, 3), got uint8 of shape (25000, 3, 32, 32)",
    ),
    "floats": (arrays(x_test=np.broadcast_to(0.0, (10_000, 32, 32, 3))), "x_test must be bytes", "got float64"),
    "all ten classes": (arrays(y_train=np.arange(25_000) % 10), "y_train must hold 5000 labels of each class 0..4"),
    "one label too many of a class": (
        arrays(y_test=np.minimum(np.arange(10_000) % 10, 8)),
        "y_test must hold 1000 labels of each class 0..9",
    ),
    "float labels": (arrays(y_test=np.arange(10_000) % 10 * 1.0), "y_test must hold 1000 labels"),
    "too few labels": (arrays(y_train=np.arange(24_995) % 5), "y_train must hold 5000 labels"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    archive, *expected = BAD[kind]
    (tmp_path / cifar5.FILE).touch()
    monkeypatch.setattr(cifar5, "read_archive", lambda path: archive)
    with pytest.raises(DataError) as caught:
        load_task("cifar5", tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / cifar5.FILE}: ")
    assert all(part in line for part in expected)
    assert "\n" not in line


def test_other_images_than_the_tables_are_taken_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    black = {name: array.copy() for name, array in arrays().items()}
    (tmp_path / cifar5.FILE).touch()
    monkeypatch.setattr(cifar5, "read_archive", lambda path: black)
    assert len(load_task("cifar5", tmp_path).train) == 22_500
    assert capsys.readouterr().err == (
        f"{tmp_path / cifar5.FILE}: not the data of this project's tables: "
        f"sha256 {cifar5._sha256(black)}, theirs {cifar5._SHA256}\n"
    )


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / cifar5.FILE).write_bytes(b"hello")
    with pytest.raises(DataError, match=r"not a readable \.npz archive"):
        load_task("cifar5", tmp_path)


def test_without_the_file_and_a_download_both_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_torchvision()
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    with pytest.raises(DataError) as caught:
        load_task("cifar5", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / cifar5.FILE}: no such file, and CIFAR-10 could not be downloaded")
    assert "BBH_DATA" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_is_cut_to_the_first_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    class Downloaded:
        """As torchvision's CIFAR10 of so many images, each of its own brightness."""

        def __init__(self, root: str, train: bool, download: bool) -> None:
            count = 50_000 if train else 10_000
            self.targets = [index % 10 for index in range(count)]
            self.data = np.broadcast_to(np.zeros((), np.uint8), (count, 32, 32, 3))

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Downloaded)
    found = cifar5._downloaded(tmp_path, tmp_path / cifar5.FILE)
    cifar5._check(tmp_path, found)
    assert found["y_train"].max() == 4
