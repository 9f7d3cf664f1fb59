"""`python -m bbh_dist.tune` and `train --workers` for real: Ray, Optuna, MLflow, processes and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from front_door import contents, exit_code
from marked_processes import have_ended, processes_of, temporary_folder
from mlflow import MlflowClient
from mlflow.entities import Run

from bbh_dist.config import load_suite

SPACE = """
base:
  task: digits5
  network: mlp:16
  method: {name: map}
  optimizer: {name: sgd, lr: 0.01}
  epochs: 3
  batch_size: 50
search:
  optimizer.lr: {loguniform: [0.005, 0.05]}
  method.prior_stddev: {choice: [0.3, 1.0, 1.0e-6]}     # the last one diverges
objectives:
  - {metric: val/nll, direction: minimize}
  - {metric: val/outlier_entropy_auc, direction: minimize}
scheduler: {name: asha, metric: val/nll, grace_epochs: 1, reduction_factor: 2}
sampler: {name: random, seed: 5}
trials: 6
final: {top: 1, seeds: [3, 4]}
"""


def common(folder: Path) -> list[str]:
    return ["--storage", str(folder / "runs"), "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]


def command(folder: Path, name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"bbh_dist.{name}", *arguments, *common(folder)]


def finish(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, name, *arguments), cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )


def logged(folder: Path, experiment: str) -> list[Run]:
    """All runs of an experiment."""
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    found: list[Run] = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return found


def runs(folder: Path, experiment: str) -> tuple[Run, list[Run]]:
    """The parent run and its children, as the store's own client reads them back."""
    found = logged(folder, experiment)
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(found) - 1
    return parent, children


def trials(folder: Path, study: str) -> list[optuna.trial.FrozenTrial]:
    path = folder / "runs" / study / "optuna.journal"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name=study, storage=storage).trials


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A study that has run to its end."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "space.yaml").write_text(SPACE)
    return folder, finish(folder, "tune", "--space", "space.yaml", "--json", "out.json")


def test_study_ends_with_trials_in_true_states(study: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = study
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "out.json").read_text())
    recorded = trials(folder, "space")
    assert [trial["number"] for trial in result["trials"]] == list(range(6))
    assert [trial["state"] for trial in result["trials"]] == [trial.state.name for trial in recorded]
    states = Counter(trial.state.name for trial in recorded)
    assert set(states) == {"COMPLETE", "PRUNED", "FAIL"}
    for trial in recorded:
        assert (trial.state.name == "FAIL") == (trial.params["method.prior_stddev"] == "1e-06")
        if trial.state.name == "FAIL":
            assert "not finite" in trial.user_attrs["reason"]


def test_study_is_told_to_mlflow(study: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = study
    parent, children = runs(folder, "space")
    recorded = {f"trial-{trial.number}": trial for trial in trials(folder, "space")}
    by_name = {run.info.run_name: run for run in children}
    assert set(by_name) == {*recorded, *(name for name in by_name if name.startswith("final-"))}
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    for name, trial in recorded.items():
        run = by_name[name]
        assert run.info.status == ("FAILED" if trial.state.name == "FAIL" else "FINISHED")
        assert run.data.tags["state"] == trial.state.name
        assert ("not finite" in run.data.tags["health"]) == (trial.state.name == "FAIL")
        assert set(run.data.params) == {"optimizer.lr", "method.prior_stddev"}
        assert "version.torch" in run.data.tags
        if trial.state.name == "COMPLETE":
            history = client.get_metric_history(run.info.run_id, "val/nll")
            assert [point.step for point in history] == [1, 2, 3]
            assert history[-1].value == trial.values[0]
        assert "config.yaml" in [file.path for file in client.list_artifacts(run.info.run_id)]
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/val/nll"] == min(t.values[0] for t in recorded.values() if t.values)
    figures = {Path(file.path).name for file in client.list_artifacts(parent.info.run_id, "figures")}
    assert {"history.png", "pareto_front.png"} <= figures


def test_final_runs_are_measured_on_test_data(study: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = study
    parent, children = runs(folder, "space")
    finals = [run for run in children if run.data.tags["kind"] == "final"]
    assert sorted(run.data.tags["seed"] for run in finals) == ["3", "4"]
    values = [run.data.metrics["test/nll"] for run in finals]
    final = json.loads((folder / "out.json").read_text())["final"]
    assert final["seeds"] == [3, 4]
    assert final["metrics"]["test/nll"]["mean"] == pytest.approx(sum(values) / 2)
    assert final["metrics"]["test/nll"]["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert parent.data.metrics["final/test/nll/mean"] == pytest.approx(sum(values) / 2)
    trial_runs = [run for run in children if run.data.tags["kind"] == "trial"]
    assert not [name for run in trial_runs for name in run.data.metrics if name.startswith("test/")]
    assert "mlflow ui --backend-store-uri sqlite:///" in done.stdout


def test_a_suite_can_read_what_the_study_found(study: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = study
    result = json.loads((folder / "out.json").read_text())
    (folder / "suite.yaml").write_text("base: {task: digits5}\nrows: {map: {method: {name: map}}}\n")
    plan = load_suite(folder / "suite.yaml", [f"settings.map={result['settings']}"])
    row, best = plan.rows["map"], result["best"][0]
    assert row.tuned is not None
    assert (row.tuned.trial, row.tuned.trials, row.tuned.settings) == (best["number"], 6, best["params"])
    assert [each.value for each in row.tuned.objectives] == list(best["values"].values())
    assert row.experiment.optimizer.lr == best["params"]["optimizer.lr"]


def test_resuming_a_finished_study_changes_nothing(study: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = study
    recorded, tracked = trials(folder, "space"), _tracked(folder)
    again = finish(folder, "tune", "--space", "space.yaml", "--resume", "--json", "again.json")
    assert again.returncode == 0, again.stderr
    assert trials(folder, "space") == recorded
    assert _tracked(folder) == tracked
    assert json.loads((folder / "again.json").read_text()) == json.loads((folder / "out.json").read_text())


def _tracked(folder: Path) -> list[dict]:
    parent, children = runs(folder, "space")
    return sorted((run.to_dictionary() for run in [parent, *children]), key=lambda run: run["info"]["run_id"])


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """How `tune --space space.yaml` refuses arguments, in this process, with nothing started: its one line."""
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *arguments: None)

    def refuse(folder: Path, *arguments: str) -> str:
        monkeypatch.chdir(folder)
        capfd.readouterr()
        assert exit_code("tune", *arguments, *common(folder)) == 2
        errors = capfd.readouterr().err
        assert errors.count("\n") == 1
        assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()
        return errors

    return refuse


@pytest.mark.parametrize(
    ("assignment", "key"),
    [
        ("sampler.seed=6", "sampler"),
        ("base.epochs=4", "base"),
        ("search.optimizer.lr={loguniform: [0.005, 0.06]}", "search"),
        ("objectives=[{metric: val/nll, direction: minimize}]", "objectives"),
    ],
)
def test_resuming_with_another_space_is_refused(
    study: tuple[Path, subprocess.CompletedProcess[str]], refused: Callable[..., str], assignment: str, key: str
) -> None:
    folder, _ = study
    before = contents(folder / "runs")
    line = refused(folder, "--resume", "--set", assignment)
    assert line.startswith(f"--resume: {key}: must be as the study began")
    assert contents(folder / "runs") == before


@pytest.mark.parametrize("damage", ["- a list\n", "{", "a: 1\na: 2\n", "\xff"])
def test_resuming_with_a_damaged_configuration_is_refused(
    study: tuple[Path, subprocess.CompletedProcess[str]], refused: Callable[..., str], damage: str
) -> None:
    path = study[0] / "runs" / "space" / "config.yaml"
    whole = path.read_bytes()
    path.write_bytes(damage.encode("latin-1"))
    try:
        line = refused(study[0], "--resume")
    finally:
        path.write_bytes(whole)
    assert line.startswith(f"{path}:")


@pytest.fixture
def temporary() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


def start(folder: Path, temporary: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    """A command whose processes are told by their TMPDIR."""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    asked = command(folder, name, *arguments)
    return subprocess.Popen(asked, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def test_interrupt_ends_cleanly_and_resume_goes_on(tmp_path: Path, temporary: Path) -> None:
    long = SPACE.replace("epochs: 3", "epochs: 300").replace("name: asha", "name: none").replace(", 1.0e-6", "")
    (tmp_path / "long.yaml").write_text(long)
    arguments = ("--space", "long.yaml", "--trials", "2", "--seeds", "1")
    process = start(tmp_path, temporary, "tune", *arguments)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not _epochs_logged(tmp_path):
            time.sleep(0.5)
        assert len(processes_of(temporary)) > 2  # driver, raylet and actors
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert have_ended(temporary)
    parent, children = runs(tmp_path, "long")
    assert {run.info.status for run in [parent, *children]} == {"KILLED"}
    assert {trial.state.name for trial in trials(tmp_path, "long")} == {"WAITING"}
    again = finish(tmp_path, "tune", *arguments, "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [(trial.number, trial.state.name) for trial in trials(tmp_path, "long")] == [
        (0, "COMPLETE"),
        (1, "COMPLETE"),
    ]
    parent, children = runs(tmp_path, "long")
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert len(children) == 3
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    for run in children:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/nll")]
        assert steps == list(range(1, 301))


def _epochs_logged(folder: Path) -> bool:
    if not (folder / "runs" / "long" / "run.json").exists():  # written when the store has been made, by one process
        return False
    return any("val/nll" in run.data.metrics for run in logged(folder, "long"))


@pytest.mark.cluster
def test_two_ray_workers_equal_one_process(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "{task: digits5, network: 'mlp:16', epochs: 2, batch_size: 45, precision: float64,\n"
        " method: {name: bbh, generator: {kind: sliced, hidden: [8, 16]}}}\n"
    )
    results = []
    for workers in ("1", "2"):
        done = finish(tmp_path, "train", "--job", "job.yaml", "--workers", workers, "--json", f"{workers}.json")
        assert done.returncode == 0, done.stdout + done.stderr
        results.append(json.loads((tmp_path / f"{workers}.json").read_text())["metrics"])
    one, two = results
    compared = [name for name in one if not name.startswith("time/")]
    assert len(compared) > 20
    for name in compared:
        assert two[name] == pytest.approx(one[name], rel=1e-9, abs=1e-9), name


def test_more_workers_than_fit_are_refused_before_anything_starts(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("batch_size: 50", "batch_size: 500"))
    line = refused(tmp_path, "--workers", "400")
    assert "400 workers x 1 CPUs = 400 CPUs, the cluster has" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["space.yaml"]


def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of its own: what this one has found of GPUs it remembers."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "space.yaml").write_text(SPACE)
    done = finish(tmp_path, "tune", "--space", "space.yaml", "--set", "parallel.use_gpu=true")
    assert done.returncode == 2
    assert "1 workers x 1 GPU = 1 GPUs, the cluster has 0" in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["space.yaml"]


@pytest.mark.cluster
def test_interrupt_ends_a_run_of_two_workers_cleanly(tmp_path: Path, temporary: Path) -> None:
    job = "{task: digits5, network: 'mlp:16', epochs: 100000, method: {name: map}, checkpoint_every_epochs: 1000}\n"
    (tmp_path / "job.yaml").write_text(job)
    process = start(tmp_path, temporary, "train", "--job", "job.yaml", "--workers", "2")
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and not (tmp_path / "runs" / "job" / "reports.jsonl").exists():
            time.sleep(0.2)
        assert len(processes_of(temporary)) > 2
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert have_ended(temporary)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("job").experiment_id])
    assert run.info.status == "KILLED"
