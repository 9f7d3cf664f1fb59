"""A dead driver costs nothing that was reported: killed at every point that matters, and at random ones."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kill_study import Study, check, check_end, duplicates, finish, runs
from killed_at import POINTS

pytestmark = pytest.mark.cluster

KILLED_AT = str(Path(__file__).with_name("killed_at.py"))
STUDY_POINTS = [point for point in POINTS if "suite" not in point]


def test_a_driver_that_dies_at_every_point_costs_nothing_that_was_reported(tmp_path: Path) -> None:
    """One study, resumed after each death only to die at the next point."""
    with Study(tmp_path, trials=20, seed=2, epochs=6) as study:
        for point in STUDY_POINTS:
            process = study.start(KILLED_AT, "tune", point)
            assert process.wait(500) == -signal.SIGKILL, f"{point}: {study.last_output()}"
            study.has_ended(cleanly=False)
        finish(study)
        check_end(study)
        assert "Traceback" not in (study.folder / "output.txt").read_text()


def test_dead_drivers_and_workers_at_random_moments_cost_nothing() -> None:
    """A short one; the whole is `python tests/cluster/kill_study.py`."""
    script = str(Path(__file__).with_name("kill_study.py"))
    kills = ["--driver-kills", "1", "--worker-kills", "1", "--interrupts", "1"]
    few = ["--seed", "3", "--trials", "4", "--epochs", "100", *kills]
    done = subprocess.run([sys.executable, script, *few], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "whole after 3 kills" in done.stdout


SUITE = """
base: {task: digits5, network: 'mlp:16', epochs: 4, batch_size: 50, evaluation: {samples: 5, epoch_samples: 2}}
rows: {map: {method: {name: map}}, wide: {method: {name: map}, network: 'mlp:32'}}
seeds: [0, 1]
"""
SUITE_POINTS = [
    "the work has begun",
    "a trial reports",
    "a final run has ended for MLflow, not in run.json",
    "a suite's results are logged and not stored",
]


def test_a_dead_driver_of_a_suite_costs_nothing_that_was_reported(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = ["--suite", "suite.yaml", "--name", "killed", "--storage", "runs", "--tracking-uri", store]
    for point in SUITE_POINTS:
        killed = subprocess.run([sys.executable, KILLED_AT, "benchmark", point, *arguments], cwd=tmp_path, timeout=500)
        assert killed.returncode == -signal.SIGKILL, point
        arguments += ["--resume"] if "--resume" not in arguments else []
    again = [sys.executable, "-m", "bbh_dist.benchmark", *arguments]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    check_suite(store)


def check_suite(store: str) -> None:
    """Four runs and their parent, each once and FINISHED, every (metric, step) once."""
    client, found = runs(store)
    names = sorted(run.info.run_name for run in found)
    assert names == ["map-seed-0", "map-seed-1", "suite killed", "wide-seed-0", "wide-seed-1"]
    assert {run.info.status for run in found} == {"FINISHED"}
    for run in found:
        check(not list(duplicates(client, run)), f"{run.info.run_name} has a (metric, step) twice")
        if run.info.run_name != "suite killed":
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "val/nll")]
            assert steps == [1, 2, 3, 4]
