"""Checkpoints are whole or absent: damaged ones are passed over, and a save that fails leaves the last one."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_checkpoints import ALONE, SHARD, STATE, epoch_found, flip, newest, save

from bbh_dist.training.checkpoints import (
    CheckpointError,
    export_checkpoint,
    files,
    newest_checkpoint,
    save_checkpoint,
)


def change_a_digit(path: Path) -> None:
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace("18425.8", "18426.8"))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a flipped byte of a tensor": lambda path: flip(path / SHARD, -2),
    "a flipped byte of the header": lambda path: flip(path / SHARD, 10),
    "a truncated shard": lambda path: (path / SHARD).write_bytes(b"12"),
    "no shard": lambda path: (path / SHARD).unlink(),
    "a foreign shard": lambda path: (path / "shard-00001.safetensors").write_bytes((path / SHARD).read_bytes()),
    "truncated state": lambda path: (path / "state.json").write_text('{"sha256": "'),
    "empty state": lambda path: (path / "state.json").write_text(""),
    "another digit in the state": change_a_digit,
    "a list for the state": lambda path: (path / "state.json").write_text("[1]"),
    "a number for the state": lambda path: (path / "state.json").write_text("7"),
    "state without a sum": lambda path: (path / "state.json").write_text('{"files": {}, "state": {}}'),
    "a number for the files": lambda path: (path / "state.json").write_text('{"files": 1, "state": {}, "sha256": ""}'),
    "state too deep to parse": lambda path: (path / "state.json").write_text("[" * 100_000),
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


def test_what_is_saved_after_damaged_ones_were_passed_over_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for epoch in (19, 20):
        flip(save(tmp_path, epoch) / SHARD, -1)
    assert newest_checkpoint(tmp_path, ALONE) is None
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
        assert epoch_found(tmp_path) == epoch
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000002", "epoch-000003"]
    assert capsys.readouterr().err.count("damaged checkpoint passed over") == 2


def test_every_byte_of_the_state_counts(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    whole = (path / "state.json").read_bytes()
    for at in range(0, len(whole), 3):
        flip(path / "state.json", at)
        found = newest_checkpoint(tmp_path, ALONE)
        assert found is None or found.state == {**STATE, "epoch": 1}
        (path / "state.json").write_bytes(whole)
    assert epoch_found(tmp_path) == 1


def test_none_is_left_where_all_are_damaged_or_none_was_written(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "absent", ALONE) is None
    flip(save(tmp_path, 1) / SHARD, -1)
    assert newest_checkpoint(tmp_path, ALONE) is None


def test_a_checkpoint_that_is_removed_before_it_is_read_is_one_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, 1)
    found = newest(tmp_path)
    (path / SHARD).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        found.read({"w": torch.zeros(3)})
    assert capfd.readouterr() == ("", "")


def test_orphans_of_a_killed_save_are_ignored_and_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    orphan = tmp_path / ".epoch-000002"
    orphan.mkdir()
    (orphan / SHARD).write_bytes(b"half")
    (tmp_path / "epoch-last").mkdir()
    assert epoch_found(tmp_path) == 1
    save(tmp_path, 2)
    assert not orphan.exists()
    assert epoch_found(tmp_path) == 2


def refuse(*arguments: Any, **named: Any) -> None:
    raise OSError(28, "No space left on device")


FAILING = ["os.fsync", "pathlib.Path.rename", "pathlib.Path.write_text", "bbh_dist.training.checkpoints.files.begin"]


@pytest.mark.parametrize("fails", FAILING)
def test_a_save_that_fails_leaves_the_last_checkpoint(
    tmp_path: Path, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(fails, refuse)
        with pytest.raises(CheckpointError, match=r"epoch-000002 cannot be written: OSError.*No space"):
            save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001"]
    assert epoch_found(tmp_path) == 1
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-000001", "epoch-000003"]


def test_a_file_that_does_not_fit_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """The system's own refusal in the middle of a shard, here at a limit on the size of files."""
    save(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            save_checkpoint(tmp_path, 2, {"w": torch.ones(10_000)}, STATE, ALONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001"]


def test_an_interrupted_save_stays_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sealed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "checkpoints", 1)
    found = newest(tmp_path / "checkpoints")
    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with pytest.raises(CheckpointError, match="No space"):
        export_checkpoint(found, tmp_path / "out.safetensors")
    assert os.listdir(tmp_path) == ["checkpoints"]
