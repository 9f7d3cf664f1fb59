"""npz: what goes in comes out, and every kind of bad archive is one line."""

import contextlib
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbh_dist.tasks import DataError, Gaussian, Task, load_task
from bbh_dist.tasks.shapes import task_shape

RANDOM = np.random.default_rng(3)


def arrays(*shape: int, dtype: type = np.uint8, **changes: Any) -> dict[str, np.ndarray]:
    """An archive of 40 training and 12 test inputs in 4 classes; a change of None leaves an array out."""

    def inputs(count: int) -> np.ndarray:
        return RANDOM.integers(0, 256, (count, *shape)).astype(dtype)

    result = {"x_train": inputs(40), "y_train": np.arange(40) % 4, "x_test": inputs(12), "y_test": np.arange(12) % 4}
    return {name: array for name, array in {**result, **changes}.items() if array is not None}


def targets(**changes: Any) -> dict[str, np.ndarray]:
    """The same with float targets."""
    numbers = {"y_train": RANDOM.normal(5, 3, 40), "y_test": RANDOM.normal(5, 3, 12)}
    return arrays(7, **{"dtype": np.float64, **numbers, **changes})


def load(path: Path, archive: dict[str, np.ndarray]) -> Task:
    np.savez_compressed(path / "own.npz", **archive)
    return load_task(f"npz:{path / 'own.npz'}", path)


def message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_task(f"npz:{path}", path.parent)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def shape_message(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        task_shape(f"npz:{path}")
    return str(caught.value)


@pytest.mark.parametrize(("shape", "found"), [((6, 5), (1, 6, 5)), ((6, 5, 3), (3, 6, 5))])
def test_images_of_bytes_come_back_with_channels_first(
    tmp_path: Path, shape: tuple[int, ...], found: tuple[int, ...]
) -> None:
    archive = arrays(*shape)
    task = load(tmp_path, archive)
    assert (task.input_shape, task.classes, len(task.test)) == (found, 4, 12)
    expected = archive["x_test"].reshape(12, 6, 5, -1).transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(task.test.inputs.numpy(), expected)
    assert task.test.labels.tolist() == archive["y_test"].tolist()


@pytest.mark.parametrize("train", [np.uint8, np.float32])
@pytest.mark.parametrize("other", ["x_test", "x_val", "x_outlier"])
def test_bytes_do_not_stand_beside_other_numbers(tmp_path: Path, train: type, other: str) -> None:
    """They would be divided by 255, and the others not."""
    archive = arrays(5, dtype=train, x_val=np.ones((4, 5), train), y_val=np.arange(4), x_outlier=np.ones((6, 5), train))
    load(tmp_path, archive)
    mixed = archive | {other: archive[other].astype(np.float32 if train is np.uint8 else np.uint8)}
    np.savez(tmp_path / "mixed.npz", **mixed)
    rule = "must hold bytes, as x_train does" if train is np.uint8 else "must not hold bytes, as x_train does not"
    assert f": {other} {rule}: bytes are divided by 255, got {mixed[other].dtype}" in message(tmp_path / "mixed.npz")


def test_float_features_come_back_as_they_are(tmp_path: Path) -> None:
    archive = arrays(7, dtype=np.float64, y_test=np.arange(12)[:, None].astype(np.uint8) % 4)
    task = load(tmp_path, archive)
    assert task.input_shape == (7,)
    assert task.test.labels.tolist() == archive["y_test"][:, 0].tolist()
    np.testing.assert_array_equal(task.test.inputs.numpy(), archive["x_test"])


def test_without_validation_a_tenth_is_held_out_always_the_same(tmp_path: Path) -> None:
    archive = arrays(7, dtype=np.float32)
    task, again = load(tmp_path, archive), load(tmp_path, archive)
    assert [len(task.train), len(task.validation)] == [36, 4]
    together = torch.cat([task.train.inputs, task.validation.inputs]).numpy()
    assert sorted(together.tolist()) == sorted(archive["x_train"].tolist())
    assert torch.equal(task.validation.inputs, again.validation.inputs)


def test_given_validation_is_used(tmp_path: Path) -> None:
    archive = arrays(7, dtype=np.float32)
    archive |= {"x_val": archive["x_test"] + 1, "y_val": archive["y_test"]}
    task = load(tmp_path, archive)
    assert len(task.train) == 40
    np.testing.assert_array_equal(task.validation.inputs.numpy(), archive["x_val"])


def test_outliers_are_split_in_halves(tmp_path: Path) -> None:
    archive = arrays(7, dtype=np.float32)
    task = load(tmp_path, archive | {"x_outlier": archive["x_test"][:9]})
    assert task.outliers_validation is not None
    assert task.outliers_test is not None
    assert [len(task.outliers_validation), len(task.outliers_test)] == [4, 5]
    together = torch.cat([task.outliers_validation, task.outliers_test]).tolist()
    assert sorted(together) == sorted(archive["x_test"][:9].tolist())


def test_without_outliers_there_are_none(tmp_path: Path) -> None:
    task = load(tmp_path, arrays(7))
    assert task.outliers_validation is task.outliers_test is None


def test_float_targets_make_a_regression(tmp_path: Path) -> None:
    archive = targets(y_test=np.arange(12, dtype=np.float16)[:, None], noise_stddev=2)
    task = load(tmp_path, archive)
    assert (task.classes, task.outputs, len(task.train), len(task.validation)) == (0, 1, 36, 4)
    assert isinstance(task.likelihood, Gaussian)
    assert task.likelihood.stddev == 2.0
    assert task.likelihood.offset == pytest.approx(archive["y_train"].mean(), rel=1e-6)
    assert task.likelihood.scale == pytest.approx(archive["y_train"].std(), rel=1e-6)
    assert task.test.labels.tolist() == list(range(12))
    together = torch.cat([task.train.labels, task.validation.labels]).tolist()
    assert sorted(together) == sorted(archive["y_train"].astype(np.float32).tolist())


def test_noise_is_by_default_what_explains_a_tenth_of_the_variance(tmp_path: Path) -> None:
    archive = targets()
    likelihood = load(tmp_path, archive).likelihood
    assert isinstance(likelihood, Gaussian)
    assert likelihood.stddev**2 == pytest.approx(archive["y_train"].var() / 10, rel=1e-6)


def test_a_class_that_is_held_out_whole_still_counts(tmp_path: Path) -> None:
    archive = arrays(7, dtype=np.float64)
    numbered = {"x_train": np.arange(40.0)[:, None].repeat(7, 1)}
    held_out = load(tmp_path, archive | numbered)
    rare = int(held_out.validation.inputs[0, 0])
    labels = np.arange(40) % 4
    labels[rare] = 4
    task = load(tmp_path, archive | {"y_train": labels})
    assert task.classes == 5
    assert 4 in task.validation.labels
    assert 4 not in task.train.labels


NAN, HUGE = np.zeros((40, 7)), np.zeros((40, 7))
NAN[3, 3], HUGE[3, 3] = np.nan, 1e300
LABELS = np.arange(40) % 4
BAD = {
    "missing array": (arrays(7, y_test=None), "y_test missing, found x_test, x_train, y_train"),
    "objects": (arrays(7, x_train=np.array([{}, []], dtype=object)), "not a readable .npz archive: Object arrays"),
    "text labels": (arrays(7, y_train=np.full(40, "a")), "y_train must hold 40 integer labels, got <U1"),
    "noise of classes": (arrays(7, noise_stddev=1.0), "noise_stddev stands beside integer labels"),
    "integers in test only": (
        targets(y_test=LABELS[:12]),
        "12 float targets, as y_train does, got int64",
    ),
    "floats in test only": (arrays(7, y_test=np.arange(12.0)), "y_test must hold 12 integer labels, got float64"),
    "two targets": (
        targets(y_train=np.zeros((40, 2))),
        "as y_train does, got float64 of shape (40, 2)",
    ),
    "too few targets": (targets(y_train=np.arange(39.0)), "y_train must hold 40 float targets"),
    "NaN target": (targets(y_test=np.full(12, np.nan)), "y_test must hold finite numbers only"),
    "large target": (targets(y_test=np.full(12, 1e300)), "y_test must hold finite numbers only"),
    "constant targets": (targets(y_train=np.ones(40)), "y_train must hold targets that differ"),
    "outliers of numbers": (targets(x_outlier=np.zeros((12, 7))), "x_outlier stands beside float targets"),
    "no noise": (targets(noise_stddev=0.0), "noise_stddev must be one positive number, got 0.0"),
    "noise that is none": (targets(noise_stddev=np.nan), "noise_stddev must be one positive number, got nan"),
    "noise of each": (targets(noise_stddev=np.ones(40)), "one positive number, got float64 of shape (40,)"),
    "noise in words": (targets(noise_stddev="9"), "noise_stddev must be one positive number, got 9"),
    "one-hot labels": (arrays(7, y_train=np.eye(4, dtype=int)[LABELS]), "integer labels, got int64 of shape"),
    "too few labels": (arrays(7, y_train=LABELS[:-1]), "y_train must hold 40 integer labels"),
    "negative label": (arrays(7, y_train=LABELS - 1), "got labels -1..2"),
    "wild label": (arrays(7, y_train=LABELS * 10**12), "no more than its 40 examples, got labels 0..3000000000000"),
    "unknown label in test": (arrays(7, y_test=np.arange(12)), "y_test must lie in 0..3 as in training, got 0..11"),
    "NaN": (arrays(7, x_train=NAN), "x_train must hold finite numbers only"),
    "too large for single precision": (arrays(7, x_train=HUGE), "x_train must hold finite numbers only"),
    "other shape in test": (arrays(7, x_test=np.zeros((12, 6))), "training data's shape (7,), got (6,)"),
    "other shape of outliers": (arrays(7, x_outlier=np.zeros((12, 7, 7))), "shape (7,), got (1, 7, 7)"),
    "one class": (arrays(7, y_train=LABELS * 0), "at least 2 classes"),
    "too few to hold out": (arrays(7, x_train=np.zeros((9, 7)), y_train=LABELS[:9]), "at least 10 inputs"),
    "one test input": (arrays(7, x_test=np.zeros((1, 7))), "x_test must hold at least 2 inputs"),
    "inputs without features": (arrays(0), "x_train must hold at least 2 inputs of numbers"),
    "no axis": (arrays(7, x_train=np.zeros(40)), "got float64 of shape (40,)"),
    "text": (arrays(7, x_train=np.full((40, 7), "a")), "got <U1 of shape (40, 7)"),
    "complex": (arrays(7, x_train=np.zeros((40, 7), complex)), "got complex128"),
    "half a validation": (arrays(7, x_val=np.zeros((4, 7))), "x_val and y_val must stand together"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_archive_is_refused(tmp_path: Path, kind: str) -> None:
    archive, expected = BAD[kind]
    np.savez(tmp_path / "own.npz", **archive)
    assert expected in message(tmp_path / "own.npz")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    assert message(path).endswith("no such file")
    path.write_bytes(b"")
    assert "not a readable .npz archive" in message(path)
    path.write_bytes(b"hello\nworld")
    assert "not a readable .npz archive" in message(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    assert "must be an .npz archive" in message(path)
    assert "not a readable .npz archive" in message(tmp_path)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays(7))
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a readable .npz archive" in message(path)


@pytest.mark.parametrize("read", [message, shape_message])
def test_an_archive_that_unpacks_to_more_than_memory_is_refused(tmp_path: Path, read: Callable[[Path], str]) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, **arrays(7))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("bomb.npy", b"")
        archive.filelist[-1].file_size = 10**14
    assert "must fit in memory, " in read(path)


def test_members_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for name in arrays(7):
            archive.writestr(name, b"hello")
    assert "x_train must hold" in message(tmp_path / "own.npz")


@pytest.mark.parametrize("header", [b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8',\n", b"\x93NUMPY\x01\x00\x04\x00012\n"])
def test_a_broken_header_of_an_array_is_refused(tmp_path: Path, header: bytes) -> None:
    """As NumPy reads them: a TokenError and a SyntaxError."""
    np.savez(tmp_path / "own.npz", **arrays(7, y_test=None))
    with zipfile.ZipFile(tmp_path / "own.npz", "a") as archive:
        archive.writestr("y_test.npy", header)
    assert "not a readable .npz archive" in message(tmp_path / "own.npz")


@pytest.mark.parametrize("compressed", [True, False])
def test_no_damage_does_worse_than_a_data_error(tmp_path: Path, compressed: bool) -> None:
    """150 archives with 3 bytes replaced, seed 0."""
    path, choice = tmp_path / "own.npz", random.Random(0)
    (np.savez_compressed if compressed else np.savez)(path, **arrays(3))
    whole = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[choice.randrange(len(whole))] = choice.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(DataError):
            load_task(f"npz:{path}", tmp_path)
