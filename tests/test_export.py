"""The export command: whole tensors in one file, one line per mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bbh_dist import export
from bbh_dist.command_line import run
from bbh_dist.training import Workers
from bbh_dist.training.checkpoints import save_checkpoint

TENSORS = {
    "method.mean": torch.randn(3, 4, dtype=torch.float64),
    "method.count": torch.tensor(3),
    "best.mean": torch.zeros(3, 4, dtype=torch.float64),
    "optimizer.0.exp_avg": torch.ones(2),
}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with two checkpoints."""
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    for epoch in (3, 12):
        state = {"epoch": epoch, "history": [{"val/nll": 0.5}]}
        save_checkpoint(tmp_path / "run" / "checkpoints", epoch, TENSORS, state, Workers())
    return tmp_path / "run"


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        run(export.main, [str(argument) for argument in arguments])
    return int(caught.value.code or 0)


@pytest.mark.parametrize("part", ["", "checkpoints", "checkpoints/epoch-000012"])
def test_the_newest_weights_are_exported(trained: Path, part: str, capfd: pytest.CaptureFixture[str]) -> None:
    output = trained.parent / "weights.safetensors"
    assert exit_code("--run", trained / part, "--output", output) == 0
    found = load_file(output)
    assert found.keys() == {"mean", "count"}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, TENSORS[f"method.{name}"], rtol=0, atol=0)
    with safe_open(output, "pt") as file:
        assert json.loads(file.metadata()["epoch"]) == 12
        assert json.loads(file.metadata()["history"]) == [{"val/nll": 0.5}]
    line = f"{output}: 2 tensors, {output.stat().st_size} bytes, epoch 12\n"
    assert capfd.readouterr() == (line, "")


def test_a_checkpoint_is_exported_whatever_its_folder_is_called(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, best = trained / "checkpoints" / "epoch-000012", trained.parent / "best"
    shutil.copytree(checkpoint, best)
    assert exit_code("--run", best, "--output", trained / "1") == 0
    monkeypatch.chdir(checkpoint)
    assert exit_code("--run", ".", "--output", trained / "2") == 0
    out, errors = capfd.readouterr()
    assert [line.partition("bytes, ")[2] for line in out.splitlines()] == ["epoch 12"] * 2
    assert errors == ""


def test_all_is_exported_under_full_names(trained: Path) -> None:
    output = trained.parent / "all.safetensors"
    assert exit_code("--run", trained, "--output", output, "--all") == 0
    found = load_file(output)
    assert found.keys() == TENSORS.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, TENSORS[name], rtol=0, atol=0)


def test_a_damaged_checkpoint_is_passed_over(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (trained / "checkpoints" / "epoch-000012" / "shard-00000.safetensors").write_bytes(b"")
    assert exit_code("--run", trained, "--output", trained / "out") == 0
    out, errors = capfd.readouterr()
    assert out.endswith("epoch 3\n")
    assert "epoch-000012: damaged checkpoint passed over" in errors
    assert exit_code("--run", trained / "checkpoints" / "epoch-000012", "--output", trained / "other") == 2
    assert "--run: damaged checkpoint: shard-00000" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("source", "output", "line"),
    [
        ("run", "run/checkpoints/epoch-000012/state.json", "--output: stands already, got"),
        ("run", "missing/out", "--output: its folder does not exist, got"),
        ("absent", "out", "--run: no such folder, got"),
        ("empty", "out", "--run: holds no whole checkpoint, got"),
        ("other/epoch-000001", "out", "epoch-000001: holds no weights of a method: --all"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_2(
    trained: Path, source: str, output: str, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = trained.parent
    (folder / "empty").mkdir()
    save_checkpoint(folder / "other", 1, {"w": torch.ones(2)}, {}, Workers())
    before = sorted(os.listdir(folder))
    assert exit_code("--run", folder / source, "--output", folder / output) == 2
    out, errors = capfd.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert line in errors
    assert sorted(os.listdir(folder)) == before


def test_an_export_that_fails_is_one_line_and_exit_1(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    assert exit_code("--run", trained, "--output", trained / "out") == 1
    assert capfd.readouterr().err.startswith(f"failed: {trained / 'out'} cannot be written: OSError: [Errno 28]")
    assert os.listdir(trained) == ["checkpoints"]


def test_help_and_mistakes_need_no_torch() -> None:
    script = (
        "import sys; from bbh_dist import export\n"
        "try: export.main(['--run', 'absent', '--output', 'x'])\n"
        "except Exception as error: print(type(error).__name__, 'torch' in sys.modules)\n"
        "export.main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("ConfigError False\nusage: python -m bbh_dist.export")
    assert "example:" in done.stdout
