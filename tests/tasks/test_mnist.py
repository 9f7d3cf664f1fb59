"""MNIST and notMNIST: the real files where they lie, and what is said where they are missing or damaged."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from data_folder import DATA

from bbh_dist.tasks import DataError, Task, load_task, mnist
from bbh_dist.tasks.torchvision_import import import_torchvision

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
LETTERS = NAMES[2:3]
FOLDERS = {"MNIST": NAMES, "notMNIST": LETTERS}
HAVE_DATA = all((DATA / folder / "raw" / name).is_file() for folder, names in FOLDERS.items() for name in names)
needs_data = pytest.mark.skipif(not HAVE_DATA, reason=f"MNIST and notMNIST are not under {DATA} (set BBH_DATA)")


def raw(name: str, folder: str = "MNIST") -> np.ndarray:
    """The file's bytes without its header."""
    return np.fromfile(DATA / folder / "raw" / name, np.uint8, offset=16 if "images" in name else 8)


def pixels(inputs: torch.Tensor) -> np.ndarray:
    return inputs.mul(255).round().to(torch.uint8).flatten(1).numpy()


def message(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_task("mnist", root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_letters(root: Path, header: tuple[int, ...] = (0x803, 10_000, 28, 28), size: int = 7_840_000) -> None:
    """A notMNIST of black images, or one whose header says something else."""
    folder = root / "notMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / LETTERS[0]).write_bytes(struct.pack(f">{len(header)}I", *header) + bytes(size))


@pytest.fixture
def no_mirrors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import_torchvision()
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [(tmp_path / "no-mirror").as_uri() + "/"])


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("mnist", DATA)


@needs_data
def test_sizes_and_ranges(task: Task) -> None:
    assert task.outliers_validation is not None
    assert task.outliers_test is not None
    assert [len(task.train), len(task.validation), len(task.test)] == [55_000, 5_000, 10_000]
    assert [len(task.outliers_validation), len(task.outliers_test)] == [5_000, 5_000]
    assert (task.input_shape, task.classes) == ((1, 28, 28), 10)
    for inputs in (task.train.inputs, task.outliers_test):
        assert (inputs.min(), inputs.max()) == (0, 1) == task.pixel_range


@needs_data
def test_the_papers_images_are_where_it_says(task: Task) -> None:
    assert task.shifts is not None
    task.shifts.check(task.test.labels)
    assert [rotation.image.index for rotation in task.shifts.rotations] == [270, 202, 217]
    assert task.test.labels[[270, 202, 217, 391]].tolist() == [3, 1, 6, 8]


@needs_data
def test_the_first_5000_images_are_validation(task: Task) -> None:
    images, labels = raw(NAMES[0]).reshape(-1, 784), raw(NAMES[1])
    assert (pixels(task.validation.inputs) == images[:5_000]).all()
    assert (task.validation.labels.numpy() == labels[:5_000]).all()
    assert (pixels(task.train.inputs[:100]) == images[5_000:5_100]).all()
    assert (task.train.labels.numpy() == labels[5_000:]).all()


@needs_data
def test_every_letter_is_in_one_half(task: Task) -> None:
    assert task.outliers_validation is not None
    assert task.outliers_test is not None
    halves = np.concatenate([pixels(task.outliers_validation), pixels(task.outliers_test)])
    letters = raw(LETTERS[0], "notMNIST").reshape(-1, 784)
    assert sorted(row.tobytes() for row in halves) == sorted(row.tobytes() for row in letters)


def link_data(root: Path) -> None:
    for folder, names in FOLDERS.items():
        (root / folder / "raw").mkdir(parents=True)
        for name in names:
            (root / folder / "raw" / name).symlink_to(DATA / folder / "raw" / name)


def write_processed(root: Path, content: bytes | None = None) -> None:
    """The files that torchvision made before 0.9 and still takes: images that are all black, or other bytes."""
    folder = root / "MNIST" / "processed"
    folder.mkdir(parents=True)
    for name, size in {"training.pt": 60_000, "test.pt": 10_000}.items():
        torch.save((torch.zeros(size, 28, 28, dtype=torch.uint8), torch.zeros(size, dtype=torch.int64)), folder / name)
        if content is not None:
            (folder / name).write_bytes(content)


@needs_data
def test_what_torchvision_once_made_is_not_taken_for_the_data(tmp_path: Path, task: Task) -> None:
    link_data(tmp_path)
    write_processed(tmp_path)
    found = load_task("mnist", tmp_path)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(found, split).inputs, getattr(task, split).inputs)
        assert torch.equal(getattr(found, split).labels, getattr(task, split).labels)


@pytest.mark.usefixtures("no_mirrors")
@pytest.mark.parametrize("content", [None, b"no tensors"])
def test_what_torchvision_once_made_does_not_stand_for_the_files(tmp_path: Path, content: bytes | None) -> None:
    write_letters(tmp_path)
    write_processed(tmp_path, content)
    assert "could not be downloaded" in message(tmp_path)


@pytest.mark.usefixtures("no_mirrors")
def test_a_download_goes_on_beside_what_torchvision_once_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off before the four files, here with other contents, were unpacked."""
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "resources", [(f"{name}.gz", None) for name in NAMES])
    write_letters(tmp_path)
    write_processed(tmp_path)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.gz").write_bytes(gzip.compress(name.encode()))
    assert message(tmp_path).startswith(f"{folder / NAMES[0]}: not MNIST's file")
    assert [(folder / name).read_text() for name in NAMES] == list(NAMES)


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    write_letters(tmp_path)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).symlink_to("/proc/self/mem")  # a file whose first byte cannot be read
    assert message(tmp_path) == f"{folder / NAMES[0]}: cannot be read: Input/output error"


def test_letters_that_cannot_be_reached_are_one_line(tmp_path: Path) -> None:
    root = tmp_path / "/".join(["x" * 200] * 20)  # longer than a path may be
    assert message(root).startswith(str(root / "notMNIST" / "raw"))


@needs_data
def test_a_flipped_byte_is_refused_with_the_sha256(tmp_path: Path) -> None:
    link_data(tmp_path)
    damaged = tmp_path / "MNIST" / "raw" / NAMES[3]
    content = bytearray(damaged.read_bytes())
    content[5_000] ^= 1
    damaged.unlink()
    damaged.write_bytes(content)
    found = message(tmp_path)
    assert found.startswith(f"{damaged}: not MNIST's file: sha256 must be ff7bcfd416de")


def test_without_letters_the_message_names_files_and_folder(tmp_path: Path) -> None:
    found = message(tmp_path)
    assert found.startswith(f"{tmp_path / 'notMNIST' / 'raw'}: ")
    assert all(part in found for part in (*LETTERS, "--data", "BBH_DATA"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_mirrors")
def test_without_digits_or_network_the_message_names_files_and_folder(tmp_path: Path) -> None:
    write_letters(tmp_path)
    found = message(tmp_path)
    assert found.startswith(f"{tmp_path / 'MNIST' / 'raw'}: ")
    assert all(part in found for part in (*NAMES, "could not be downloaded", "--data", "BBH_DATA"))


def test_other_files_of_the_right_names_are_refused(tmp_path: Path) -> None:
    write_letters(tmp_path)
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / "MNIST" / "raw" / name).write_bytes(b"not an image")
    assert "sha256 must be ba891046e650" in message(tmp_path)


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ((0x1F8B0808, 4, 28, 28), 4 * 784),
        ((0x80A, 4, 28, 28), 4 * 784),
        ((0xA03, 4, 28, 28), 4 * 784),
        ((0xD03, 4, 28, 28), 4 * 784 * 4),
        ((0x803, 4, 28, 27), 4 * 28 * 27),
        ((0x803, 4, 28, 28), 4 * 784),
        ((0x803, 5, 28, 28), 4 * 784),
        ((0x803, 2**32 - 1, 28, 28), 4 * 784),
        ((0x803, 4, 28, 28), 0),
        ((), 0),
        ((0x1F8B0808, 10_000, 28, 28), 7_840_000),
        ((0xD03, 10_000, 28, 7), 7_840_000),
        ((0x803, 10_000, 28, 27), 7_840_000),
    ],
    ids=[
        "gzip",
        "axes",
        "type",
        "floats",
        "27 wide",
        "four",
        "short",
        "huge",
        "header only",
        "empty",
        *("right size: gzip", "floats there", "27 wide there"),
    ],
)
def test_letters_with_a_wrong_header_are_refused(tmp_path: Path, header: tuple[int, ...], size: int) -> None:
    write_letters(tmp_path, header, size)
    assert message(tmp_path).startswith(str(tmp_path / "notMNIST" / "raw" / LETTERS[0]))


def test_letters_that_are_not_the_tables_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_letters(tmp_path)
    import_torchvision()
    mnist._outliers(tmp_path / "notMNIST" / "raw")
    assert "not the data of this project's tables: sha256 " in capfd.readouterr().err


@needs_data
def test_the_tables_letters_are_known(capfd: pytest.CaptureFixture[str]) -> None:
    import_torchvision()
    mnist._outliers(DATA / "notMNIST" / "raw")
    assert capfd.readouterr().err == ""
