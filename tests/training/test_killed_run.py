"""`python -m bbh_dist.train` killed in the middle of an epoch: what `--resume` makes of it, with the real MLflow."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bbh_dist import train
from bbh_dist.command_line import run
from bbh_dist.config import load_experiment
from bbh_dist.tasks import load_task
from bbh_dist.training import Trainer

JOB = str(Path(__file__).resolve().parents[2] / "jobs" / "digits5_bbh.yaml")
EPOCHS = 3
SETTINGS = [f"epochs={EPOCHS}", "batch_size=3", "evaluation.epoch_samples=3", "parallel.cpus_per_worker=1"]


def arguments(folder: Path, *more: str) -> list[str]:
    result = ["--job", JOB, "--name", "x", "--storage", str(folder), "--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    for setting in SETTINGS:
        result += ["--set", setting]
    return [*result, *more]


def command(folder: Path, *more: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "bbh_dist.train", *arguments(folder, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def kill_in_the_middle_of_the_third_epoch(folder: Path) -> None:
    process = command(folder)
    second = folder / "x" / "checkpoints" / "epoch-000002"
    while not second.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    time.sleep(0.3)  # of 0.8 seconds that the epoch takes
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed, then resumed to its end; in `reference` is one that was not."""
    folder = tmp_path_factory.mktemp("killed")
    kill_in_the_middle_of_the_third_epoch(folder)
    checkpoints = sorted(path.name for path in (folder / "x" / "checkpoints").glob("epoch-*"))
    assert checkpoints == ["epoch-000001", "epoch-000002"]
    process = command(folder, "--resume")
    uninterrupted().save(folder / "reference")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "going on after epoch 2" in output
    return folder


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The command changes signals, variables and threads of its process."""
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    yield
    signal.signal(signal.SIGTERM, before)
    torch.set_num_threads(threads)


def exit_code(folder: Path, *more: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        run(train.main, arguments(folder, *more))
    return caught.value.code


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of all of the run's files."""
    files = [path for path in (folder / "x").rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def uninterrupted() -> Trainer:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the command: parallel.cpus_per_worker
    trainer = Trainer(load_experiment(JOB, SETTINGS), load_task("digits5", Path()))
    while not trainer.done:
        trainer.run_epoch()
    torch.set_num_threads(threads)
    return trainer


def test_the_last_checkpoint_has_the_bits_of_an_uninterrupted_run(killed: Path) -> None:
    last = Path(f"epoch-{EPOCHS:06d}") / "shard-00000.safetensors"
    expected, found = load_file(killed / "reference" / last), load_file(killed / "x" / "checkpoints" / last)
    assert found.keys() == expected.keys()
    assert len(found) > 20
    for name, value in found.items():
        assert torch.equal(value, expected[name]), name


def test_mlflow_shows_one_finished_run_with_every_metric_and_step_once(killed: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{killed}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert [(run.info.run_name, run.info.status) for run in runs] == [("x", "FINISHED")]
    assert runs[0].data.tags["health"] == "ok"
    metrics = runs[0].data.metrics
    assert {"train/loss", "val/nll", "test/nll", "test/outlier_auroc"} <= metrics.keys()
    for name in metrics:
        steps = Counter(point.step for point in client.get_metric_history(runs[0].info.run_id, name))
        expected = [EPOCHS] if name.startswith("test/") else range(1, EPOCHS + 1)
        assert steps == Counter(expected), name


@pytest.mark.usefixtures("in_this_process")
def test_resuming_what_is_finished_changes_nothing(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, database = snapshot(killed), (killed / "mlflow.db").read_bytes()
    assert exit_code(killed, "--resume") == 0
    assert "test/nll" in capsys.readouterr().out
    assert snapshot(killed) == before
    assert (killed / "mlflow.db").read_bytes() == database


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--resume", "--set", "optimizer.lr=0.004"], "--resume: the experiment must be as the run began"),
        (["--resume", "--seed", "1"], "--resume: the experiment must be as the run began"),
        ([], "--name: stands already"),
        (["--resume", "--name", "y"], "--resume: there is no run to resume"),
        (["--name", "../x"], "--name: must be letters"),
    ],
)
def test_a_command_that_does_not_suit_the_run_is_refused(
    killed: Path, more: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(killed)
    assert exit_code(killed, *more) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(expected)
    assert snapshot(killed) == before
