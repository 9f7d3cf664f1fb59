"""A dead training worker, or driver, costs at most the steps since the last checkpoint, and changes no result."""

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_processes import EPOCHS, lose_driver, lose_nothing, lose_worker

from bbh_dist.training import Workers
from bbh_dist.training.checkpoints import newest_checkpoint

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In their third epoch `worker` lost one of its workers, `driver` its driver, after which it was resumed."""
    folder = tmp_path_factory.mktemp("lost")
    seed = time.time_ns()
    print("seed", seed)
    lose_worker(folder, "worker", random.Random(seed))
    lose_driver(folder, "driver")
    lose_nothing(folder, "whole")
    return folder


def tensors(folder: Path) -> dict[str, Tensor]:
    found = newest_checkpoint(folder / "checkpoints", Workers())
    assert found is not None
    assert found.epoch == EPOCHS
    into = {name: torch.zeros(size, dtype=dtype) for name, (size, dtype) in found.shapes.items()}
    found.read(into)
    return into


def reports(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name / "reports.jsonl").read_text().splitlines()]


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


@pytest.mark.parametrize("lost", ["worker", "driver"])
def test_it_ends_with_the_weights_of_an_uninterrupted_run(folder: Path, lost: str) -> None:
    found, expected = tensors(folder / lost), tensors(folder / "whole")
    assert found.keys() == expected.keys()
    assert len(found) > 20
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("lost", ["worker", "driver"])
def test_it_has_the_metrics_of_an_uninterrupted_run(folder: Path, lost: str) -> None:
    found, expected = (json.loads((folder / name / "run.json").read_text())["result"] for name in (lost, "whole"))
    assert {"val/nll", "test/nll"} <= found["metrics"].keys()
    assert timeless(found["metrics"]) == timeless(expected["metrics"])


@pytest.mark.parametrize("lost", ["worker", "driver"])
def test_no_epoch_before_the_last_checkpoint_was_run_again(folder: Path, lost: str) -> None:
    epochs = Counter(report["epoch"] for report in reports(folder, lost))
    assert epochs == {epoch: 1 for epoch in range(1, EPOCHS + 1)}


def test_mlflow_has_one_finished_run_with_every_metric_and_step_once(folder: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    names = sorted((run.info.run_name, run.info.status) for run in runs)
    assert names == [("driver", "FINISHED"), ("whole", "FINISHED"), ("worker", "FINISHED")]
    metrics = [set(run.data.metrics) for run in runs]
    assert metrics[0] == metrics[1] == metrics[2]
    for run in runs:
        for name in run.data.metrics:
            steps = Counter(point.step for point in client.get_metric_history(run.info.run_id, name))
            expected = [EPOCHS] if name.startswith("test/") else range(1, EPOCHS + 1)
            assert steps == Counter(expected), (run.info.run_name, name)
