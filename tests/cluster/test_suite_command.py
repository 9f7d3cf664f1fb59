"""`python -m bbh_dist.benchmark` for real: Ray, MLflow, processes and signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from marked_processes import have_ended, processes_of, temporary_folder
from mlflow import MlflowClient
from mlflow.entities import Run

pytestmark = pytest.mark.cluster

SUITE = """
base: {task: digits5, network: 'mlp:16', epochs: 300, batch_size: 50, evaluation: {samples: 5, epoch_samples: 2}}
rows:
  map: {method: {name: map}}
  two: {method: {name: map}, parallel.workers: 2, epochs: 5}
  bbh-single: {method: {name: bbh, generator: {kind: single, hidden: [8]}}, epochs: 60}
quick: {epochs: 3}
published: {source: someone 2017, figures: {map: {test/error: 0.8}}}
"""


def command(folder: Path, *arguments: str) -> list[str]:
    (folder / "suite.yaml").write_text(SUITE)
    common = ["--storage", str(folder / "runs"), "--tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    return [sys.executable, "-m", "bbh_dist.benchmark", "--suite", "suite.yaml", *arguments, *common]


def finish(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = command(folder, *arguments)
    return subprocess.run(asked, cwd=folder, capture_output=True, text=True, timeout=400, check=False)


def recorded(folder: Path) -> dict[str, dict]:
    """The record of runs, empty where there is none yet."""
    path = folder / "runs" / "suite" / "run.json"
    return json.loads(path.read_text()).get("runs", {}) if path.exists() else {}


def complete(folder: Path) -> list[str]:
    return [name for name, run in recorded(folder).items() if run["state"] == "COMPLETE"]


def logged(folder: Path) -> list[Run]:
    """All runs, as the store's own client reads them back; none before the suite has made its folder."""
    if not (folder / "runs" / "suite" / "run.json").exists():  # written when the store has been made, by one process
        return []
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    found: list[Run] = client.search_runs([client.get_experiment_by_name("suite").experiment_id])
    return found


def runs(folder: Path) -> tuple[Run, dict[str, Run]]:
    """The parent run, and its children by name."""
    found = logged(folder)
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in found if run is not parent}
    assert len(children) == len(found) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    return parent, children


def cut_off(
    folder: Path, number: int, when: Callable[[], bool], *arguments: str, **environment: str
) -> subprocess.Popen[str]:
    """A suite that gets a signal when something has come true; it has ended then."""
    variables = {**os.environ, **environment}
    process = subprocess.Popen(
        command(folder, *arguments), cwd=folder, env=variables, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None and not when():
            time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(number)
        process.communicate(timeout=60)
    finally:
        process.kill()
    return process


def tracked(folder: Path) -> list[dict]:
    parent, children = runs(folder)
    return sorted((run.to_dictionary() for run in [parent, *children.values()]), key=lambda run: run["info"]["run_id"])


def test_a_killed_suite_repeats_nothing_that_had_finished(tmp_path: Path) -> None:
    process = cut_off(tmp_path, signal.SIGKILL, lambda: len(complete(tmp_path)) >= 2, "--seeds", "2")
    assert process.returncode == -signal.SIGKILL
    before = {name: recorded(tmp_path)[name] for name in complete(tmp_path)}
    assert 2 <= len(before) < 6
    ended = {run.info.run_name: run.info.end_time for run in logged(tmp_path) if run.info.status == "FINISHED"}

    done = finish(tmp_path, "--seeds", "2", "--resume", "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {f"{row}-seed-{seed}" for row in ("map", "two", "bbh-single") for seed in (0, 1)}
    parent, children = runs(tmp_path)
    assert set(children) == names
    assert {run.info.status for run in [parent, *children.values()]} == {"FINISHED"}
    assert {name: recorded(tmp_path)[name] for name in before} == before
    assert {name: children[name].info.end_time for name in ended} == ended  # the store may not know of all, yet
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name, run in children.items():
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/nll")]
        epochs = {"map": 300, "two": 5, "bbh-single": 60}[name.partition("-seed")[0]]
        assert steps == list(range(1, epochs + 1)), name
        assert "version.torch" in run.data.tags
        assert run.data.tags["seed"] == name[-1]
        assert "config.yaml" in [file.path for file in client.list_artifacts(run.info.run_id)]
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"config.yaml", "report.html", "table.md", "table.csv", "figures"} <= files
    result = json.loads((tmp_path / "out.json").read_text())
    assert [(row["name"], row["seeds"]) for row in result["rows"]] == [
        *(("map", [0, 1]), ("two", [0, 1]), ("bbh-single", [0, 1]))
    ]
    values = [children[f"map-seed-{seed}"].data.metrics["test/nll"] for seed in (0, 1)]
    assert result["rows"][0]["metrics"]["test/nll"]["mean"] == pytest.approx(sum(values) / 2)
    assert "someone 2017" in (tmp_path / "runs" / "suite" / "report.html").read_text()

    state = tracked(tmp_path)
    again = finish(tmp_path, "--seeds", "2", "--resume", "--json", "again.json")
    assert again.returncode == 0, again.stderr
    assert tracked(tmp_path) == state
    assert (tmp_path / "again.json").read_text() == (tmp_path / "out.json").read_text()


@pytest.fixture
def temporary() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder


def test_interrupt_ends_cleanly_and_a_second_driver_is_refused(tmp_path: Path, temporary: Path) -> None:
    refused: list[subprocess.CompletedProcess[str]] = []

    def when() -> bool:
        if not any("val/nll" in run.data.metrics for run in logged(tmp_path)):
            return False
        refused.append(finish(tmp_path, "--seeds", "1", "--methods", "map", "--resume", "--set", "epochs=100000"))
        assert len(processes_of(temporary)) > 2  # driver, raylet and actors
        return True

    arguments = ("--seeds", "1", "--methods", "map", "--set", "epochs=100000")
    process = cut_off(tmp_path, signal.SIGINT, when, *arguments, TMPDIR=str(temporary))
    assert process.returncode == 130
    assert have_ended(temporary)
    assert refused[0].returncode == 2
    assert "another process works on it" in refused[0].stderr
    assert refused[0].stderr.strip().count("\n") == 0
    parent, children = runs(tmp_path)
    assert {run.info.status for run in [parent, *children.values()]} == {"KILLED"}


def test_pieces_make_one_table(tmp_path: Path) -> None:
    first = finish(tmp_path, "--seeds", "1", "--methods", "map", "--quick")
    assert first.returncode == 0, first.stdout + first.stderr
    second = finish(tmp_path, "--seeds", "2", "--methods", "bbh-single", "--quick", "--resume", "--json", "out.json")
    assert second.returncode == 0, second.stdout + second.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert [(row["name"], row["seeds"]) for row in result["rows"]] == [("map", [0]), ("bbh-single", [0, 1])]
    assert result["quick"] is True
    table = (tmp_path / "runs" / "suite" / "table.md").read_text()
    assert "quick: epochs 3" in table
    other = finish(tmp_path, "--seeds", "1", "--methods", "map", "--resume")
    assert (other.returncode, "quick" in other.stderr or "rows.map" in other.stderr) == (2, True)
