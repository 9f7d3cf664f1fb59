"""The tracking store, written by us and read back through MLflow's own client."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from bbh_dist.masking import masked
from bbh_dist.tracking import Tracker, tracking_uri, ui_command


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker(f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}", "study")


@pytest.fixture
def client(tracker: Tracker) -> MlflowClient:
    return MlflowClient(tracking_uri=tracker.uri)


def test_a_run_is_read_back_whole(tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    parent = tracker.start_run("study", tags={"kind": "study"}, params={"trials": 3}, config="trials: 3\n")
    child = tracker.start_run("trial-0", parent=parent, params={"lr": 0.1})
    for epoch in (1, 2):
        tracker.log_epoch(child, {"epoch": epoch, "val/nll": 1 / epoch})
    (tmp_path / "figure.png").write_bytes(b"png")
    tracker.log_file(child, tmp_path / "figure.png", "figures")
    tracker.end_run(child, "FINISHED")
    tracker.end_run(parent, "KILLED")
    run = client.get_run(child)
    assert (run.info.run_name, run.info.status) == ("trial-0", "FINISHED")
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.params == {"lr": "0.1"}
    points = client.get_metric_history(child, "val/nll")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5)]
    assert [file.path for file in client.list_artifacts(child, "figures")] == ["figures/figure.png"]
    assert client.get_run(parent).info.status == "KILLED"
    assert client.get_run(parent).data.tags["kind"] == "study"
    assert Path(client.download_artifacts(parent, "config.yaml")).read_text() == "trials: 3\n"


def test_a_reopened_run_logs_no_epoch_twice(tracker: Tracker, client: MlflowClient) -> None:
    run_id = tracker.start_run("trial")
    for epoch in (1, 2):
        tracker.log_epoch(run_id, {"epoch": epoch, "val/nll": 1.0})
    tracker.end_run(run_id, "KILLED")
    again = Tracker(tracker.uri, "study")
    again.reopen_run(run_id)
    assert client.get_run(run_id).info.status == "RUNNING"
    for epoch in (1, 2, 3):
        again.log_epoch(run_id, {"epoch": epoch, "val/nll": 2.0})
    again.end_run(run_id, "FINISHED")
    points = client.get_metric_history(run_id, "val/nll")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_what_is_not_finite_is_a_tag_and_no_metric(tracker: Tracker, client: MlflowClient) -> None:
    run_id = tracker.start_run("trial")
    tracker.log(run_id, {"val/nll": float("nan"), "val/error": 2.5}, step=4)
    tracker.end_run(run_id, "FAILED")
    run = client.get_run(run_id)
    assert run.data.metrics == {"val/error": 2.5}
    assert run.data.tags["not_finite.val/nll"] == "nan at step 4"


def test_a_name_that_the_store_refuses_is_changed(tracker: Tracker, client: MlflowClient) -> None:
    run_id = tracker.start_run("trial")
    tracker.log(run_id, {"adversarial/fgsm/error@0.05": 2.5}, step=4)
    tracker.end_run(run_id, "FINISHED")
    assert client.get_run(run_id).data.metrics == {"adversarial/fgsm/error:0.05": 2.5}


def test_long_values_are_cut(tracker: Tracker, client: MlflowClient) -> None:
    run_id = tracker.start_run("trial", params={"hidden": "1," * 9_000}, tags={"reason": "x" * 9_000})
    run = client.get_run(run_id)
    assert run.data.params["hidden"].endswith("...")
    assert len(run.data.tags["reason"]) == 500


def test_a_deleted_experiment_is_restored(tracker: Tracker, client: MlflowClient) -> None:
    gone = Tracker(tracker.uri, "gone")
    client.delete_experiment(gone.experiment_id)
    assert Tracker(tracker.uri, "gone").experiment_id == gone.experiment_id


def test_artifacts_lie_beside_the_store(tracker: Tracker, client: MlflowClient) -> None:
    folder = Path(tracker.uri.removeprefix("sqlite:///")).parent
    assert client.get_experiment(tracker.experiment_id).artifact_location == (folder / "mlartifacts/study").as_uri()


def test_the_store_is_the_flags_the_environments_or_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None) == f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking_uri(None) == "http://server"
    assert tracking_uri("sqlite:///x.db") == f"sqlite:///{tmp_path / 'x.db'}"


def test_passwords_are_masked() -> None:
    assert masked("postgresql://me:secret@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert masked("sqlite:////x/mlflow.db") == "sqlite:////x/mlflow.db"
    assert ui_command("https://me:secret@host/", "7") == "https://me:***@host/#/experiments/7"
