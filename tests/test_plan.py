"""The command in this process: tables, JSON and mistakes."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbh_dist import plan
from bbh_dist.command_line import run
from bbh_dist.costs import Machine
from bbh_dist.tasks import load_task
from bbh_dist.tasks.shapes import TaskShape, task_shape

JOBS = Path(__file__).parents[1] / "jobs"
JOB = str(JOBS / "digits5_bbh.yaml")
WRN = str(JOBS / "wrn_plan.yaml")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    monkeypatch.setattr(
        "bbh_dist.costs.machine.measure_machine",
        lambda threads: Machine("cpu", 1e10, 1e11, ((1, 1e11),), 1e-6, memory_bytes=10**10, overhead_bytes=10**8),
    )


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run(plan.main, arguments)
    return int(caught.value.code or 0)


def planned(*arguments: str) -> dict[str, Any]:
    assert exit_code(*arguments, "--json", "plan.json") == 0
    result: dict[str, Any] = json.loads(Path("plan.json").read_text())
    return result


def test_json_has_what_the_contract_says(capsys: pytest.CaptureFixture[str]) -> None:
    result = planned("--job", JOB, "--workers", "2")
    assert {"parameters", "per_worker", "wire", "step_seconds", "device"} <= result.keys()
    assert {"parameters", "optimizer", "activations", "peak"} <= result["per_worker"].keys()
    assert set(result["wire"]) == {"weights", "divergence", "weight_gradients", "gradients"}
    assert result["device"] == "cpu"
    assert result["epoch_seconds"] == pytest.approx(11 * result["step_seconds"])  # 541 examples, 50 a step
    assert result["per_worker"]["peak"] > 10**8
    out = capsys.readouterr().out
    assert "sent: weight gradients" in out
    assert "fits from 1 x cpu (10 GB)" in out


def test_several_devices_and_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--set", "network=wrn-10-1", "--input", "3x32x32", "--classes", "10", "--device", "h100-sxm", "t4")
    result = planned("--job", WRN, *arguments)
    assert [row["device"] for row in result["devices"]] == ["h100-sxm", "t4"]
    assert result["devices"][0]["step_seconds"] < result["devices"][1]["step_seconds"]
    assert result["epoch_seconds"] is None
    assert "fits from 1 x t4 (16 GB)" in capsys.readouterr().out


def test_a_range_of_workers_is_planned_with_the_most(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned("--job", JOB, "--set", "parallel.workers={min: 2, max: 4}")
    assert "4 workers (of 2 to 4)" in capsys.readouterr().out
    assert found["workers"] == 4
    assert found["wire"] == planned("--job", JOB, "--workers", "4")["wire"]


def test_shards_are_taken() -> None:
    whole, halves = (planned("--job", JOB, "--workers", "2", "--shards", shards) for shards in "12")
    assert whole["per_worker"]["activations"] > halves["per_worker"]["activations"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--device", "h100"], "--device: must be one of cpu, h100-sxm"),
        (["--workers", "3", "--shards", "2"], "parallel.shards: must divide parallel.workers, 3"),
        (["--input", "3x32x32"], "--input, --classes: must stand together"),
        (["--input", "3x", "--classes", "10"], '--input: must be sizes such as 3x32x32, got "3x"'),
        (["--input", "3x32x32", "--classes", "1"], "--classes: must be from 2 to 1000000, got 1"),
        (["--set", "network=lenet"], "network: lenet needs images"),
        (["--set", "task=npz:none.npz"], "none.npz: no such file"),
        (["--json", "none/plan.json"], "--json: cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    capfd: pytest.CaptureFixture[str], arguments: list[str], fragment: str
) -> None:
    assert exit_code("--job", JOB, *arguments) == 2
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors.count("\n") == 1
    assert fragment in errors


def archive(path: Path, shape: tuple[int, ...], **others: np.ndarray) -> Path:
    labels = np.arange(shape[0]) % 4
    arrays = {"x_train": np.zeros(shape, np.float32), "y_train": labels, "x_test": np.zeros(shape), "y_test": labels}
    np.savez(path, **arrays, **others)
    return path


@pytest.mark.parametrize("shape", [(20, 6), (20, 9, 8), (20, 9, 8, 3)])
def test_shape_of_an_archive_is_that_of_the_task(tmp_path: Path, shape: tuple[int, ...]) -> None:
    name = f"npz:{archive(tmp_path / 'own.npz', shape)}"
    task = load_task(name, tmp_path)
    assert task_shape(name) == TaskShape(task.input_shape, task.outputs, len(task.train))


def test_shape_of_targets_is_that_of_the_task(tmp_path: Path) -> None:
    path = archive(tmp_path / "own.npz", (20, 6))
    with np.load(path) as arrays:
        np.savez(path, **{name: array + 0.5 if name[0] == "y" else array for name, array in arrays.items()})
    task = load_task(f"npz:{path}", tmp_path)
    assert task_shape(f"npz:{path}") == TaskShape((6,), 1, len(task.train)) == TaskShape((6,), task.outputs, 18)


@pytest.mark.parametrize(
    ("job", "parameters", "steps"), [("toy_map", 301, 5), ("cifar5_map", 462_693, 225), ("cifar5_bbh", None, 225)]
)
def test_tasks_are_planned_without_their_data(job: str, parameters: int | None, steps: int) -> None:
    result = planned("--job", str(JOBS / f"{job}.yaml"), "--set", "batch_size=4" if job == "toy_map" else "seed=0")
    assert parameters in (None, result["parameters"])
    assert result["epoch_seconds"] == pytest.approx(steps * result["step_seconds"])
    assert "statistics" not in result["wire"]


def test_shape_of_digits5_is_that_of_the_task(tmp_path: Path) -> None:
    task = load_task("digits5", tmp_path)
    assert task_shape("digits5") == TaskShape(task.input_shape, task.outputs, len(task.train))


def test_only_the_header_of_inputs_is_read(tmp_path: Path) -> None:
    path = archive(tmp_path / "own.npz", (20, 6))
    cut = tmp_path / "cut.npz"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(cut, "w") as target:
        for name in whole.namelist():
            content = whole.read(name)
            target.writestr(name, content[:200] if name == "x_train.npy" else content)
    assert task_shape(f"npz:{cut}") == TaskShape((6,), 4, 18)


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_damaged_archives_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "own.npz").write_bytes(content)
    assert exit_code("--job", JOB, "--set", "task=npz:own.npz") == 2
    assert capfd.readouterr().err.count("\n") == 1


def test_neither_ray_nor_mlflow_is_imported() -> None:
    script = (
        "import sys; from bbh_dist import plan, preflight\n"
        "from bbh_dist.costs import devices, fitting, prediction\n"
        "from bbh_dist.tasks import shapes\n"
        "print(*(name in sys.modules for name in ('ray', 'mlflow', 'optuna')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False False"
