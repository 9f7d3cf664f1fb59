"""Checkpoints are whole or absent, and hold no pickle."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bbh_dist.training.checkpoints import newest_checkpoint, save_checkpoint

STATE = {"epoch": 3, "seconds": 0.1 + 0.2, "history": [{"val/nll": 1e-300, "train/kl": 18425.825248579546}]}


def save(folder: Path, *epochs: int) -> Path:
    for epoch in epochs:
        path = save_checkpoint(folder, epoch, {"w": torch.full((3,), float(epoch))}, {**STATE, "epoch": epoch})
    return path


def epoch_found(folder: Path) -> int | None:
    found = newest_checkpoint(folder)
    if found is None:
        return None
    tensors, state = found
    assert tensors["w"].tolist() == [state["epoch"]] * 3
    return state["epoch"]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def change_a_digit(path: Path) -> None:
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace("18425.8", "18426.8"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped byte of a tensor": lambda path: flip(path / "tensors.safetensors", -2),
    "a flipped byte of the header": lambda path: flip(path / "tensors.safetensors", 10),
    "truncated tensors": lambda path: (path / "tensors.safetensors").write_bytes(b"12"),
    "no tensors": lambda path: (path / "tensors.safetensors").unlink(),
    "truncated state": lambda path: (path / "state.json").write_text('{"sha256": "'),
    "empty state": lambda path: (path / "state.json").write_text(""),
    "another digit in the state": change_a_digit,
    "a list for the state": lambda path: (path / "state.json").write_text("[1]"),
    "a number for the state": lambda path: (path / "state.json").write_text("7"),
    "state without a sum": lambda path: (path / "state.json").write_text("{}"),
    "state that is not text": lambda path: (path / "state.json").write_bytes(b"\xff\xfe"),
    "no state": lambda path: (path / "state.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[damage](save(tmp_path, 1, 2))
    assert epoch_found(tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"{tmp_path / 'epoch-000002'}: damaged checkpoint passed over: ")


def test_every_byte_of_the_state_counts(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    whole = (path / "state.json").read_bytes()
    for at in range(0, len(whole), 3):
        flip(path / "state.json", at)
        found = newest_checkpoint(tmp_path)
        assert found is None or found[1] == {**STATE, "epoch": 1}
        (path / "state.json").write_bytes(whole)
    assert epoch_found(tmp_path) == 1


def test_none_is_left_where_all_are_damaged_or_none_was_written(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent") is None
    flip(save(tmp_path, 1) / "tensors.safetensors", -1)
    assert newest_checkpoint(tmp_path) is None


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4, dtype=torch.float64).mT,
        "b": torch.tensor(7.0),
        "c": torch.arange(3),
        "d": torch.tensor([float("nan"), -0.0]),
    }
    save_checkpoint(tmp_path, 5, tensors, STATE)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1] == STATE
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[0][name], tensor, rtol=0, atol=0, equal_nan=True)


def test_the_newest_two_are_kept_in_the_order_of_numbers(tmp_path: Path) -> None:
    save(tmp_path, 9, 10, 999_999, 1_000_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-1000000", "epoch-999999"]
    assert epoch_found(tmp_path) == 1_000_000


def test_saving_an_epoch_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save_checkpoint(tmp_path, 1, {"w": torch.zeros(2)}, {"epoch": 1, "again": True})
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[1]["again"]


def test_orphans_of_a_killed_save_are_ignored_and_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    orphan = tmp_path / ".epoch-000002-4711"
    orphan.mkdir()
    (orphan / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / "epoch-last").mkdir()
    assert epoch_found(tmp_path) == 1
    save(tmp_path, 2)
    assert not orphan.exists()
    assert epoch_found(tmp_path) == 2


@pytest.mark.parametrize("fails", ["fsync", "rename"])
def test_a_save_that_fails_leaves_the_last_checkpoint(
    tmp_path: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync" if fails == "fsync" else "pathlib.Path.rename", fail)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 2)
    assert epoch_found(tmp_path) == 1
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000001", "epoch-000003"]


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "tensors.safetensors"]
    json.loads((path / "state.json").read_text())
    header = (path / "tensors.safetensors").read_bytes()
    assert json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["w"]["dtype"] == "F32"
