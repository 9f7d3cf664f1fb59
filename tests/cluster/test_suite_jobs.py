"""A suite's jobs without a cluster: what is recorded, what is left, in which order, and how a cut-off run goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bbh_dist.cluster import trainables
from bbh_dist.cluster.jobs import Job, Outcome
from bbh_dist.cluster.recorded import RecordedJobs
from bbh_dist.cluster.suite import SuiteRun
from bbh_dist.cluster.tracked import TrackedJobs
from bbh_dist.cluster.trainables import OneWorkerTrial
from bbh_dist.command_line import RunOptions
from bbh_dist.config import ConfigError, Experiment, MapMethod, load_suite, run_name
from bbh_dist.storage import RunFolder
from bbh_dist.suite_results import as_json, collect

SUITE = """\
base: {task: digits5, network: 'mlp:8', epochs: 2, batch_size: 50}
rows:
  map: {method: {name: map}}
  wide: {method: {name: map}, network: 'mlp:400-400'}
  bbh-single: {method: {name: bbh}}
  bbh-sliced: {method: {name: bbh, generator: {kind: sliced}}}
  two: {method: {name: map}, parallel.workers: 2}
seeds: [0, 1]
published: {source: someone, figures: {map: {test/error: 0.8}}}
"""
EXPERIMENT = Experiment(task="digits5", network="mlp:8", method=MapMethod(name="map"), epochs=4)


def complete(error: float, nll: float) -> Outcome:
    metrics = {"epoch": 2, "val/nll": nll, "test/error": error, "time/train_seconds": 3.0}
    return Outcome("COMPLETE", metrics, 5.0, details={"curves": {}})


def suite_run(folder: Path, *assignments: str, resume: bool = False, methods: str | None = None) -> SuiteRun:
    (folder / "suite.yaml").write_text(SUITE)
    plan = load_suite(folder / "suite.yaml", assignments, methods=methods)
    storage, store = str(folder / "runs"), f"sqlite:///{folder / 'mlflow.db'}"
    return SuiteRun(plan, RunOptions("suite", storage=storage, tracking_uri=store, resume=resume))


@pytest.fixture
def folder(tmp_path: Path, empty_store: bytes) -> Path:
    (tmp_path / "mlflow.db").write_bytes(empty_store)
    return tmp_path


def run_folder(path: Path) -> RunFolder:
    folder = RunFolder(path / "run")
    folder.create("", {"parent_run_id": "p"})
    return folder


def test_what_is_complete_is_not_proposed_again(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    jobs = [Job(name, EXPERIMENT, 0, {}, final=True) for name in ("a", "b", "c", "d")]
    source = RecordedJobs(folder, "runs", jobs)
    assert len(source) == 4
    for outcome in (complete(1.0, 0.1), Outcome("FAIL", {}, 1.0, "loss is nan")):
        job = source.next_job()
        source.ended(job, outcome)
    source.next_job()  # cut off here
    again = RecordedJobs(RunFolder(folder.path), "runs", jobs)
    assert [again.next_job().name for _ in range(len(again))] == ["b", "c", "d"]
    assert again.failures() == {"b": "loss is nan", "c": "cut off", "d": "cut off"}
    assert folder.record()["parent_run_id"] == "p"
    assert folder.record()["runs"]["a"]["details"] == {"curves": {}}


def test_the_longest_runs_come_first_in_groups_of_equal_resources(folder: Path) -> None:
    run = suite_run(folder)
    groups = list(run._groups(run._jobs(run.plan.methods)))
    assert [parallel.workers for parallel, _ in groups] == [1, 2]
    assert [job.name for job in groups[1][1]] == ["two-seed-0", "two-seed-1"]
    rows = [job.params["row"] for job in groups[0][1]]
    assert rows[-2:] == ["map", "map"]
    assert {rows[at] for at in (0, 2, 4)} == {"bbh-single", "bbh-sliced", "wide"}
    assert [job.experiment.seed for job in groups[0][1]] == [0, 1] * 4


def test_recorded_seconds_decide_the_order(folder: Path) -> None:
    run = suite_run(folder, "seeds=[0,1,2]")
    jobs = run._jobs(["bbh-single", "map"])
    record = RecordedJobs(run.folder, "runs", [jobs[0], jobs[3]])
    for job, seconds in ((jobs[0], 1.0), (jobs[3], 50.0)):
        record.ended(job, Outcome("COMPLETE", {}, seconds))
    ((_, left),) = run._groups(jobs)
    assert [job.name for job in left] == ["map-seed-1", "map-seed-2", "bbh-single-seed-1", "bbh-single-seed-2"]


def test_rows_and_seeds_may_be_more_on_a_resume_but_not_others(folder: Path) -> None:
    suite_run(folder, "seeds=[0]", methods="map")
    assert suite_run(folder, "seeds=[0,1,2]", resume=True).plan.seeds == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"--resume: rows.map: must be as the suite began"):
        suite_run(folder, "rows.map.epochs=3", resume=True)


def test_the_suite_of_a_folder_has_one_driver(folder: Path) -> None:
    run = suite_run(folder)
    with run.folder.lock(), pytest.raises(ConfigError, match="another process works on it"):
        suite_run(folder, resume=True).run()


def test_a_job_that_is_run_again_goes_on_in_its_run(folder: Path) -> None:
    run = suite_run(folder)
    job = run._jobs(["map"])[0]
    found = []
    for epoch in (1, 2):
        again = suite_run(folder, resume=True)
        with again.folder.lock(), again.tracker.delivering():  # in the end the driver is killed, as far as others see
            again.tracker.start_run(again.parent)
            again.tracker.kill_children(again.parent)
            tracked = TrackedJobs(again.tracker, again.parent, again.tags, [])
            tracked.started(job)
            for each in range(1, epoch + 1):
                tracked.reported(job, {"epoch": each, "val/nll": 1.0})
        found.append(again.tracker.run_id(job.name))
    assert found[0] == found[1] is not None
    client = MlflowClient(tracking_uri=run.tracker.uri)
    stored = client.get_run(found[0])
    assert (stored.info.status, stored.data.params) == ("RUNNING", {"row": "map", "method.name": "map"})
    assert [point.step for point in client.get_metric_history(found[0], "val/nll")] == [1, 2]
    assert len(client.search_runs([run.tracker.experiment_id])) == 2


def test_results_are_the_records_of_the_seeds(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    plan = load_suite(tmp_path / "suite.yaml", methods="map,bbh-single")
    folder = run_folder(tmp_path)
    ends = {
        ("map", 0): complete(2.0, 0.1),
        ("map", 7): complete(99.0, 0.1),
        ("bbh-single", 0): complete(1.0, 0.5),
        ("bbh-sliced", 1): complete(3.0, 0.4),
        ("bbh-single", 1): Outcome("FAIL", {}, 1.0, "loss is nan"),
    }
    for (row, seed), outcome in ends.items():
        job = Job(run_name(row, seed), EXPERIMENT, 0, {})
        source = RecordedJobs(folder, "runs", [job])
        source.ended(job, outcome)
    results = collect("suite", plan, folder.record()["runs"], {})
    assert [row.name for row in results.rows] == ["map", "bbh-single", "bbh-sliced"]
    assert results.row("map").runs == {0: ends["map", 0].metrics}
    assert results.row("bbh-single").failures == {1: "loss is nan"}
    # The least NLL on validation data, whatever test data says.
    assert results.reference == "bbh-sliced"
    found = json.loads(json.dumps(as_json(results)))
    assert found["quick"] is False
    assert found["rows"][0]["metrics"]["test/error"] == {"mean": 2.0, "std": 0.0, "n": 1}
    assert (found["rows"][0]["seconds"], found["rows"][0]["published"]) == (3.0, {"test/error": 0.8})
    assert found["rows"][1]["seeds"] == [0]


def steps(trial: OneWorkerTrial, most: int) -> list[dict[str, Any]]:
    results = []
    while len(results) < most and not (results and results[-1].get("done")):
        results.append(trial.step())
    return results


def without_times(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in result.items() if not name.startswith("time") and name != "details"}
        for result in results
    ]


@pytest.mark.parametrize("cut_off_after", [2, 4], ids=["mid-run", "before-the-test-measures"])
def test_a_run_that_was_cut_off_goes_on_and_tells_all_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off_after: int
) -> None:
    monkeypatch.setattr(trainables, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(trainables, "_MOST_TIME_FOR_CHECKPOINTS", 1e9)
    config = {"experiment": EXPERIMENT.model_dump_json(), "data": "data", "folder": str(tmp_path), "final": True}
    config["rungs"] = []
    whole = steps(OneWorkerTrial(config | {"keeps_checkpoints": False}), 9)
    assert not (tmp_path / "checkpoints").exists()
    if cut_off_after == 4:  # the last epoch is trained, its checkpoint written, and then the process dies
        monkeypatch.setattr(trainables.Trainer, "test", lambda trainer: (_ for _ in ()).throw(MemoryError("killed")))
    first = steps(OneWorkerTrial(config | {"keeps_checkpoints": True}), cut_off_after)
    assert without_times(first[:2]) == without_times(whole[:2])
    monkeypatch.undo()
    epochs: list[int] = []
    monkeypatch.setattr(trainables.Trainer, "run_epoch", _counted(trainables.Trainer.run_epoch, epochs))
    again = steps(OneWorkerTrial(config | {"keeps_checkpoints": True}), 9)
    assert without_times(again) == without_times(whole)
    assert again[-1]["details"]["curves"] == whole[-1]["details"]["curves"]
    assert again[0]["time/train_seconds"] == first[0]["time/train_seconds"]
    assert epochs == list(range(cut_off_after, 4))


def test_epochs_of_a_checkpoint_are_reported_together_and_wait_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainables, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(trainables, "_MOST_TIME_FOR_CHECKPOINTS", 1e9)
    config = {"experiment": EXPERIMENT.model_dump_json(), "data": "data", "folder": str(tmp_path), "final": False}
    config |= {"keeps_checkpoints": True, "rungs": []}
    steps(OneWorkerTrial(config), 3)
    monkeypatch.setattr(trainables, "_SECONDS_BETWEEN_REPORTS", 60.0)
    again = OneWorkerTrial(config)
    assert [[result["epoch"] for result in again.train_buffered()] for _ in range(2)] == [[1, 2, 3], [4]]


def _counted(run_epoch: Any, epochs: list[int]) -> Any:
    def counted(trainer: Any) -> dict[str, float]:
        epochs.append(trainer.epoch)
        return run_epoch(trainer)

    return counted
