"""Checkpoints of runs that will not go on are removed, as soon as nobody writes them; those of others stay."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bbh_dist.cluster import run, standing
from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.config import Experiment

TWO = Experiment.model_validate({"task": "digits5", "method": {"name": "map"}, "parallel": {"workers": 2}})


def checkpoint_of(folder: Path) -> Path:
    """A checkpoint as far as its folder."""
    path = folder / "checkpoints" / "epoch-000001"
    path.mkdir(parents=True, exist_ok=True)
    return path


class Source:
    """One job, again and again."""

    def __init__(self, job: Job) -> None:
        self.job, self.states = job, [""]

    def next_job(self) -> Job:
        return self.job

    def ended(self, job: Job, outcome: Outcome) -> None:
        self.states.append(outcome.state)


@pytest.mark.parametrize(
    ("final", "state", "stays", "stays_after_all"),
    [
        (False, "COMPLETE", False, False),
        (False, "PRUNED", True, False),  # its workers have not let go of it
        (False, "FAIL", False, False),
        (True, "COMPLETE", False, False),
        (True, "FAIL", True, True),  # it is run again on a resume
    ],
)
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_what_goes_on_keeps_its_checkpoints(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    final: bool,
    state: str,
    stays: bool,
    stays_after_all: bool,
    is_interrupted: bool,
) -> None:
    source = Source(Job("job", TWO, 0, {}, final=final))
    checkpoint = checkpoint_of(tmp_path / "workers" / "job")
    stayed: list[bool] = []

    class Tuner:
        """Runs one trial, which ends as it is told to."""

        def __init__(self, trainable: Any, *, tune_config: Any, run_config: Any) -> None:
            self.search, self.callbacks = tune_config.search_alg, run_config.callbacks

        def fit(self) -> None:
            trial: Any = SimpleNamespace(config=self.search.suggest("a"), error_file=None)
            result = {"epoch": 1, "val/nll": 0.1} | ({"finished": True} if state == "COMPLETE" else {})
            for callback in self.callbacks:
                callback.on_trial_result(1, [trial], trial, result)
                assert checkpoint.exists()
                (callback.on_trial_error if state == "FAIL" else callback.on_trial_complete)(1, [trial], trial)
            stayed.append(checkpoint.exists())
            checkpoint_of(checkpoint.parent.parent)  # as workers do that have not been told yet
            if is_interrupted:
                raise KeyboardInterrupt

    monkeypatch.setattr(run.tune, "Tuner", Tuner)
    settings: dict[str, Any] = {"concurrent": 1, "scheduler": None, "observers": [], "data": "."}
    try:
        run.run_jobs(source, 1, parallel=TWO.parallel, folder=tmp_path, **settings)
    except KeyboardInterrupt:
        assert is_interrupted
    assert source.states[-1] == state
    assert stayed == [stays]
    assert checkpoint.exists() == stays_after_all


@pytest.mark.parametrize("is_first", [True, False])
def test_the_first_worker_removes_them_when_all_have_left_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    names = ["trial-0", "trial-1", "final-0", "final-1"]
    orders = [
        {"experiment": TWO.model_dump_json(), "data": ".", "folder": str(tmp_path / name), "final": "final" in name}
        for name in names
    ]
    seen: list[list[str]] = []

    def train(experiment: Experiment, data: str, folder: Path, final: bool, stopped: Any) -> None:
        checkpoint_of(folder)
        seen.append([name for name in names if (tmp_path / name / "checkpoints").exists()])

    monkeypatch.setattr(standing, "train_job", train)
    desk: Any = SimpleNamespace(is_first=is_first, next_job=lambda: orders.pop(0) if orders else {}, has_news=None)
    standing._work(desk)
    if is_first:
        assert seen == [["trial-0"], ["trial-1"], ["final-0"], ["final-0", "final-1"]]
    else:
        assert seen == [names[: count + 1] for count in range(4)]
