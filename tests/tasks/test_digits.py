"""digits5: sizes, classes and splits; every image in exactly one split, the same one in every process."""

import hashlib
import subprocess
import sys

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bbh_dist.config import DataError
from bbh_dist.tasks import Task, load_task
from bbh_dist.tasks.digits import load_digits5
from bbh_dist.tasks.task import shuffled


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return load_task("digits5", tmp_path_factory.mktemp("empty"))


def rows(*parts: Tensor) -> list[list[float]]:
    return sorted(torch.cat([part.flatten(1) for part in parts]).mul(16).tolist())


def test_sizes(task: Task) -> None:
    assert task.outliers_validation is not None
    assert task.outliers_test is not None
    assert [len(task.train), len(task.validation), len(task.test)] == [541, 180, 180]
    assert [len(task.outliers_validation), len(task.outliers_test)] == [448, 448]
    assert task.input_shape == (1, 8, 8)
    assert task.classes == 5


def test_pixels_lie_between_0_and_1(task: Task) -> None:
    assert task.train.inputs.dtype == torch.float32
    assert task.train.inputs.min() == 0
    assert task.train.inputs.max() == 1


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_each_split_has_the_classes_0_to_4(task: Task, part: str) -> None:
    assert getattr(task, part).labels.unique().tolist() == [0, 1, 2, 3, 4]


def test_every_image_is_in_exactly_one_part_and_classes_5_to_9_are_outliers(task: Task) -> None:
    assert task.outliers_validation is not None
    assert task.outliers_test is not None
    images, labels = (torch.tensor(part) for part in load_digits(return_X_y=True))
    assert rows(task.train.inputs, task.validation.inputs, task.test.inputs) == sorted(images[labels < 5].tolist())
    assert rows(task.outliers_validation, task.outliers_test) == sorted(images[labels >= 5].tolist())


def test_labels_stay_with_their_images(task: Task) -> None:
    images, labels = load_digits(return_X_y=True)
    known = {tuple(image): label for image, label in zip(images.tolist(), labels.tolist(), strict=True)}
    for split in (task.train, task.validation, task.test):
        found = [known[tuple(image)] for image in split.inputs.flatten(1).mul(16).tolist()]
        assert found == split.labels.tolist()


def test_splits_are_the_same_in_every_process() -> None:
    code = (
        "import hashlib; from bbh_dist.tasks.task import shuffled; import torch; torch.manual_seed(5);"
        "print(hashlib.sha256(shuffled('digits5', 901).numpy().tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(shuffled("digits5", 901).numpy().tobytes()).hexdigest()


def test_a_permutation_belongs_to_its_name() -> None:
    assert sorted(shuffled("a", 50).tolist()) == list(range(50))
    assert shuffled("a", 50).tolist() != shuffled("b", 50).tolist()


def test_moving_a_task_keeps_labels_whole(task: Task) -> None:
    moved = task.to(torch.device("cpu"), torch.float64)
    assert moved.outliers_test is not None
    assert moved.train.inputs.dtype == moved.outliers_test.dtype == torch.float64
    assert moved.train.labels.dtype == torch.int64


def test_without_scikit_learn_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bbh_dist.tasks.digits.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^digits5: .*scikit-learn, which is not installed$"):
        load_digits5()
