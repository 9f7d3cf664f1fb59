"""What a task cannot give is refused in one line before anything starts."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bbh_dist.config import ConfigError, Experiment, SearchSpace
from bbh_dist.preflight import check_experiment, check_fresh_seeds, check_space


def space(task: str, metric: str, **changes: Any) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "base": {"task": task, "network": "mlp:5", "method": {"name": "map"}, "batch_size": 5},
            "search": {"optimizer.lr": {"loguniform": [1e-3, 1e-1]}},
            "objectives": [{"metric": metric, "direction": "minimize"}],
            **changes,
        }
    )


def message(of: SearchSpace) -> str:
    with pytest.raises(ConfigError) as caught:
        check_space(of, ".")
    assert len(caught.value.mistakes) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("task", "metric", "emitted"),
    [
        ("toy", "val/error", "val/rmse, val/nll, val/coverage"),
        ("toy", "val/outlier_auroc", "val/rmse, val/nll, val/coverage"),
        ("digits5", "val/rmse", "val/error, val/nll, val/brier"),
        ("digits5", "val/coverage", "val/error, val/nll, val/brier"),
    ],
)
def test_an_objective_that_the_task_does_not_emit(task: str, metric: str, emitted: str) -> None:
    line = message(space(task, metric))
    assert line.startswith(f"{task}: objectives.0.metric: must be one of {emitted}")
    assert line.endswith(f", which the task emits, got {metric}")


def test_a_scheduler_s_metric_is_checked_as_well() -> None:
    scheduler = {"name": "asha", "metric": "val/error"}
    assert message(space("toy", "val/nll", scheduler=scheduler)).startswith("toy: scheduler.metric: must be one of")


@pytest.mark.parametrize(
    ("task", "metric"), [("toy", "val/rmse"), ("toy", "val/nll"), ("digits5", "val/outlier_auroc")]
)
def test_what_the_task_emits_may_be_searched(task: str, metric: str) -> None:
    check_space(space(task, metric), ".")


def test_without_outliers_the_reason_is_said(tmp_path: Path) -> None:
    labels = np.arange(20) % 2
    np.savez(tmp_path / "own.npz", x_train=np.eye(20), y_train=labels, x_test=np.eye(20), y_test=labels)
    line = message(space(f"npz:{tmp_path / 'own.npz'}", "val/outlier_auroc"))
    assert "has no outliers to measure it on (x_outlier), got val/outlier_auroc" in line


def test_a_last_batch_without_statistics_is_refused(tmp_path: Path) -> None:
    images, labels = np.zeros((21, 8, 8, 3), np.uint8), np.arange(21) % 2
    parts = {
        f"{axis}_{part}": values for part in ("train", "val", "test") for axis, values in (("x", images), ("y", labels))
    }
    np.savez(tmp_path / "own.npz", **parts)
    settings = {"task": f"npz:{tmp_path / 'own.npz'}", "network": "preact-resnet", "method": {"name": "map"}}
    with pytest.raises(ConfigError, match="batch_size: leaves a last batch of one of the 21 training examples"):
        check_experiment(Experiment.model_validate(settings | {"batch_size": 5}), ".")
    for changes in ({"batch_size": 6}, {"batch_size": 5, "normalisation": "group"}):
        check_experiment(Experiment.model_validate(settings | changes), ".")


def test_steps_are_not_compiled_into_a_folder_that_others_can_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment.model_validate(
        {"task": "toy", "network": "mlp:5", "method": {"name": "map"}, "batch_size": 5, "parallel": {"compile": True}}
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"bbh_dist-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "torchinductor_root"))  # as torch itself sets it
    with pytest.raises(ConfigError, match=r"^parallel.compile: .*remove it, got true$"):
        check_experiment(experiment, ".")
    folder.chmod(0o700)
    check_experiment(experiment, ".")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder / "torch")


def test_final_runs_of_a_new_study_have_other_seeds_than_its_trials() -> None:
    found = space("toy", "val/nll", final={"seeds": [0, 7]})
    check_fresh_seeds(found)
    with pytest.raises(ConfigError, match=r"^search space: final.seeds: must not have 7, .* got \[0, 7\]$"):
        check_fresh_seeds(found.with_seed(7))
