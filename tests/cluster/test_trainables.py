"""What a trial's actor does and when, without Ray: Tune starts a trial again only where it is lost in a step."""

import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from bbh_dist.cluster import trainables
from bbh_dist.cluster.trainables import OneWorkerTrial, SeveralWorkersTrial
from bbh_dist.config import Experiment

ONE = Experiment.model_validate({"task": "digits5", "network": "mlp:8", "method": {"name": "map"}, "epochs": 2})
_SECONDS_TO_BUILD = 0.3


def config(folder: Path, **parallel: Any) -> dict[str, Any]:
    experiment = ONE.model_copy(update={"parallel": ONE.parallel.model_copy(update=parallel)})
    where = {"data": ".", "folder": str(folder / "trial"), "keeps_checkpoints": False, "rungs": []}
    return {"experiment": experiment.model_dump_json(), "final": False, **where}


class Trainer:
    """A training run of one epoch that costs nothing, after a start that does."""

    built = 0

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        Trainer.built += 1
        time.sleep(_SECONDS_TO_BUILD)
        self.done = True

    def run_epoch(self) -> dict[str, float]:
        return {"epoch": 1}


def test_a_trial_is_built_in_its_first_step_and_its_time_is_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainables, "Trainer", Trainer)
    monkeypatch.setattr(Trainer, "built", 0)
    trial = OneWorkerTrial(config(tmp_path))
    for built in (1, 2):
        assert Trainer.built == built - 1
        result = trial.train()
        assert Trainer.built == built
        assert (result["epoch"], result["finished"], result["done"]) == (1, True, True)
        assert result["time_this_iter_s"] < _SECONDS_TO_BUILD / 2
        assert trial.reset(config(tmp_path))


@pytest.mark.parametrize(
    ("rungs", "seconds", "together"), [([], 60, [5]), ([1, 3], 60, [1, 2, 2]), ([], 0, [1, 1, 1, 1, 1])]
)
def test_epochs_are_reported_together_up_to_one_that_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rungs: list[int], seconds: int, together: list[int]
) -> None:
    monkeypatch.setattr(trainables, "_SECONDS_BETWEEN_REPORTS", seconds)
    experiment = ONE.model_copy(update={"epochs": 5}).model_dump_json()
    trial = OneWorkerTrial(config(tmp_path) | {"experiment": experiment, "rungs": rungs})
    reports = [trial.train_buffered(2, 0.0)]
    while not reports[-1][-1]["done"]:
        reports.append(trial.train_buffered(2, 0.0))
    assert [len(report) for report in reports] == together
    assert [result["epoch"] for report in reports for result in report] == [1, 2, 3, 4, 5]


def test_a_failure_is_reported_with_the_epochs_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainables, "_SECONDS_BETWEEN_REPORTS", 60)
    run_epoch = trainables.Trainer.run_epoch

    def diverge(trainer: Any) -> dict[str, float]:
        if trainer.epoch == 1:
            raise trainables.Diverged("epoch 2: the loss is not finite")
        return run_epoch(trainer)

    monkeypatch.setattr(trainables.Trainer, "run_epoch", diverge)
    first, last = OneWorkerTrial(config(tmp_path)).train_buffered()
    assert (first["epoch"], first["done"]) == (1, False)
    assert (last["failure"], last["done"]) == ("epoch 2: the loss is not finite", True)


def test_a_final_runs_epochs_do_not_wait_for_its_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainables, "_SECONDS_BETWEEN_REPORTS", 60)
    experiment = ONE.model_copy(update={"epochs": 4}).model_dump_json()
    trial = OneWorkerTrial(config(tmp_path) | {"experiment": experiment, "final": True})
    assert [result["epoch"] for result in trial.train_buffered()] == [1, 2, 3]
    (last,) = trial.train_buffered()
    assert (last["epoch"], last["done"]) == (4, True)
    assert "test/error" in last


def test_epochs_before_a_gpu_is_lost_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainables, "_SECONDS_BETWEEN_REPORTS", 60)
    run_epoch = trainables.Trainer.run_epoch
    monkeypatch.setattr(trainables.Trainer, "run_epoch", lambda self: refuse() if self.epoch else run_epoch(self))
    cuda_that(refuse, monkeypatch)
    trial = OneWorkerTrial(config(tmp_path))
    assert [result["epoch"] for result in trial.train_buffered()] == [1]
    with pytest.raises(RuntimeError, match="the GPU is lost"):
        trial.train_buffered()


def test_the_former_trials_memory_is_free_before_the_next_is_built(tmp_path: Path) -> None:
    trial = OneWorkerTrial(config(tmp_path))
    trial.step()
    assert trial._trainer is not None
    former = weakref.ref(next(trial._trainer.method.parameters()))
    trial.reset_config(config(tmp_path))
    assert former() is None


class Workers:
    """Workers that cannot be given an order."""

    def __init__(self, *arguments: Any) -> None:
        self.orders: list[Path] = []

    def train(self, experiment: Experiment, data: str, folder: Path, final: bool) -> None:
        self.orders.append(folder)
        raise OSError("no space left on the disk")


def test_workers_get_a_trial_in_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainables, "StandingWorkers", Workers)
    trial = SeveralWorkersTrial(config(tmp_path, workers=2))
    workers: Any = trial._workers
    with pytest.raises(OSError, match="no space left"):
        trial.step()
    assert trial.reset_config(config(tmp_path / "next", workers=2))
    assert workers.orders == [tmp_path / "trial"]
    with pytest.raises(OSError, match="no space left"):
        trial.step()
    assert workers.orders == [tmp_path / "trial", tmp_path / "next" / "trial"]


def cuda_that(synchronize: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)


def refuse(*arguments: Any, **settings: Any) -> Any:
    raise torch.AcceleratorError("CUDA error: device-side assert triggered\nFor debugging consider this and that.\n")


@pytest.mark.parametrize("where", ["__init__", "run_epoch"])
def test_a_gpu_that_is_lost_to_the_process_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(trainables.Trainer, where, refuse)
    cuda_that(refuse, monkeypatch)
    trial = OneWorkerTrial(config(tmp_path))
    # One line: the last one of the traceback is the trial's reason, if it is started again in vain.
    with pytest.raises(RuntimeError, match=r"^the GPU is lost .* AcceleratorError: CUDA error: device-side[^\n]*$"):
        trial.step()


def test_a_gpu_without_enough_memory_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(trainer: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainables.Trainer, "run_epoch", fill)
    cuda_that(lambda: None, monkeypatch)
    trial = OneWorkerTrial(config(tmp_path))
    assert trial.step() == {"failure": "OutOfMemoryError: CUDA out of memory.", "done": True}
