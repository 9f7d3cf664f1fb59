"""A lost node is survived: with as many workers where others have room, with fewer where the run allows it."""

import json
import subprocess
from functools import cache
from pathlib import Path

import pytest
from lose_node import SETTINGS
from training_processes import JOB, lose_node_command, skip_without_namespaces

from bbh_dist.config import load_experiment
from bbh_dist.tasks import load_task
from bbh_dist.training import Trainer

pytestmark = pytest.mark.cluster


@cache
def alone() -> Trainer:
    """One process that trains the same."""
    trainer = Trainer(load_experiment(JOB, SETTINGS), load_task("digits5", Path()))
    while not trainer.done:
        trainer.run_epoch()
    return trainer


@pytest.mark.parametrize(("workers", "expected"), [("2", None), ("{min: 1, max: 3}", [3, 3, 2, 2])])
def test_a_lost_node_is_survived(tmp_path: Path, workers: str, expected: list[int] | None) -> None:
    skip_without_namespaces()
    done = subprocess.run(lose_node_command(tmp_path, workers), capture_output=True, text=True, timeout=900)
    output = (tmp_path / "run.out").read_text()
    assert done.returncode == 0, done.stderr + output
    reports = [json.loads(line) for line in (tmp_path / "run" / "reports.jsonl").read_text().splitlines()]
    assert [report["epoch"] for report in reports] == [1, 2, 3, 4]
    if expected is not None:
        assert [report["time/workers"] for report in reports] == expected
    measures, _ = alone().test()
    found = json.loads((tmp_path / "run" / "run.json").read_text())["result"]["metrics"]
    for name, value in {**alone().history[-1], **measures}.items():
        if not name.startswith("time/") and name != "epoch":
            assert found[name] == pytest.approx(value, rel=1e-6), name
