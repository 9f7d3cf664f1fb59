"""The tracking store, written by us and read back through MLflow's own client."""

import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from bbh_dist.config import ConfigError
from bbh_dist.masking import masked
from bbh_dist.tracking import Tracker, tracking_uri, ui_command
from bbh_dist.tracking.store import connect

Open = Callable[..., AbstractContextManager[Tracker]]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri)


@pytest.fixture
def delivered(uri: str, tmp_path: Path) -> Open:
    """Opens the tracker of this test's folder; what was logged has arrived when it is closed."""

    @contextmanager
    def opened(experiment: str = "study"):
        tracker = Tracker(tmp_path, uri, experiment, key=str(tmp_path))
        with tracker.delivering():
            yield tracker
        assert (tracker.left, tracker.refused) == (0, 0)

    return opened


def run_of(client: MlflowClient, tracker: Tracker, name: str) -> Run:
    run_id = tracker.run_id(name)
    assert run_id is not None
    return client.get_run(run_id)


def test_a_run_is_read_back_whole(delivered: Open, client: MlflowClient, tmp_path: Path) -> None:
    with delivered() as tracker:
        tracker.start_run("study", tags={"kind": "study"}, params={"trials": 3}, config="trials: 3\n")
        tracker.start_run("trial-0", parent="study", params={"lr": 0.1})
        for epoch in (1, 2):
            tracker.log_epoch("trial-0", {"epoch": epoch, "val/nll": 1 / epoch})
        (tmp_path / "figure.png").write_bytes(b"png")
        tracker.log_file("trial-0", tmp_path / "figure.png", "figures")
        tracker.end_run("trial-0", "FINISHED")
        tracker.end_run("study", "KILLED")
    run, parent = run_of(client, tracker, "trial-0"), run_of(client, tracker, "study")
    assert (run.info.run_name, run.info.status) == ("trial-0", "FINISHED")
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.params == {"lr": "0.1"}
    points = client.get_metric_history(run.info.run_id, "val/nll")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5)]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "figures")] == ["figures/figure.png"]
    assert (parent.info.status, parent.data.tags["kind"]) == ("KILLED", "study")
    assert Path(client.download_artifacts(parent.info.run_id, "config.yaml")).read_text() == "trials: 3\n"


def test_one_run_per_trial_over_restarts_and_no_epoch_twice(delivered: Open, client: MlflowClient) -> None:
    with delivered() as tracker:
        tracker.start_run("trial")
        for epoch in (1, 2):
            tracker.log_epoch("trial", {"epoch": epoch, "val/nll": 1.0})
        tracker.tag("trial", "reason", "it failed")
        tracker.end_run("trial", "FAILED")
    first = run_of(client, tracker, "trial")
    assert (first.info.status, first.data.tags["reason"]) == ("FAILED", "it failed")
    with delivered() as tracker:
        tracker.start_run("trial")
        for epoch in (1, 2, 3):
            tracker.log_epoch("trial", {"epoch": epoch, "val/nll": 2.0})
        tracker.end_run("trial", "FINISHED")
    again = run_of(client, tracker, "trial")
    assert (again.info.run_id, again.info.status) == (first.info.run_id, "FINISHED")
    assert "reason" not in again.data.tags
    points = client.get_metric_history(first.info.run_id, "val/nll")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_runs_that_nobody_runs_any_more_end_killed(delivered: Open, client: MlflowClient) -> None:
    with delivered() as tracker:
        for name, parent in (("study", None), ("a", "study"), ("b", "study")):
            tracker.start_run(name, parent=parent)
        tracker.end_run("a", "FINISHED")
    with delivered() as tracker:
        tracker.kill_children("study")
    statuses = {name: run_of(client, tracker, name).info.status for name in ("study", "a", "b")}
    assert statuses == {"study": "RUNNING", "a": "FINISHED", "b": "KILLED"}


def test_a_run_that_was_deleted_is_not_gone_on_with(delivered: Open, client: MlflowClient, uri: str) -> None:
    with delivered() as tracker:
        tracker.start_run("study")
    client.delete_run(tracker.run_id("study"))
    with delivered() as tracker, pytest.raises(ConfigError, match=r"--resume: its run .* is no longer in the tracking"):
        tracker.check_stands("study")


def test_results_name_runs_by_their_ids(delivered: Open) -> None:
    with delivered() as tracker:
        tracker.start_run("study")
    result = {"parent_run_id": "study", "trials": [{"run_id": "study", "number": 1}, {"run_id": "never told"}]}
    run_id = tracker.run_id("study")
    assert tracker.with_run_ids(result) == {
        "parent_run_id": run_id,
        "trials": [{"run_id": run_id, "number": 1}, {"run_id": None}],
    }


def test_what_is_not_finite_is_a_tag_and_no_metric(delivered: Open, client: MlflowClient) -> None:
    with delivered() as tracker:
        tracker.start_run("trial")
        tracker.log("trial", {"val/nll": float("nan"), "val/error": 2.5}, step=4)
    run = run_of(client, tracker, "trial")
    assert run.data.metrics == {"val/error": 2.5}
    assert run.data.tags["not_finite.val/nll"] == "nan at step 4"


def test_a_name_that_the_store_refuses_is_changed(delivered: Open, client: MlflowClient) -> None:
    with delivered() as tracker:
        tracker.start_run("trial")
        tracker.log("trial", {"adversarial/fgsm/error@0.05": 2.5}, step=4)
    assert run_of(client, tracker, "trial").data.metrics == {"adversarial/fgsm/error:0.05": 2.5}


def test_values_are_short_and_without_passwords(delivered: Open, client: MlflowClient, tmp_path: Path) -> None:
    with delivered() as tracker:
        tracker.start_run("trial", params={"hidden": "1," * 9_000}, tags={"reason": "x" * 9_000})
        tracker.tag("trial", "store", "no answer from postgresql://me:secret@host/db")
    run = run_of(client, tracker, "trial")
    assert run.data.params["hidden"].endswith("...")
    assert len(run.data.tags["reason"]) == 500
    assert run.data.tags["store"] == "no answer from postgresql://me:***@host/db"
    files = list((tmp_path / "tracking").iterdir())
    assert sorted(path.name for path in files) == ["delivered.json", "operations.jsonl"]
    for path in files:
        assert "secret" not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_the_store_will_never_take_is_set_aside_and_said(
    uri: str, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(tmp_path, uri, "study", key=str(tmp_path))
    with tracker.delivering():
        tracker.start_run("trial", params={"lr": 0.1})
        tracker.log_file("trial", tmp_path / "missing.png")
        tracker.log("trial", {"val/nll": 1.0}, 1)
        tracker.log("trial", {"a name?": 1.0}, 1)
        tracker.log("trial", {"val/nll": 0.5}, 2)
        tracker.end_run("trial", "FINISHED")
    run = run_of(client, tracker, "trial")
    assert (run.info.status, run.data.metrics, run.data.params) == ("FINISHED", {"val/nll": 0.5}, {"lr": "0.1"})
    assert (tracker.left, tracker.refused) == (0, 2)
    errors = capsys.readouterr().err
    assert "refused 2 entries" in errors
    assert f"python -m bbh_dist.tracking sync {tmp_path}" in errors
    (tmp_path / "missing.png").write_bytes(b"png")
    again = Tracker(tmp_path, uri, "study", key=str(tmp_path))
    with again.delivering():
        pass
    assert again.refused == 1  # and the file has arrived
    assert "missing.png" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_a_spool_that_a_dying_process_left_torn_is_read_to_its_last_whole_line(
    delivered: Open, client: MlflowClient, tmp_path: Path
) -> None:
    with delivered() as tracker:
        tracker.start_run("trial")
        tracker.log("trial", {"val/nll": 1.0}, 1)
    with open(tmp_path / "tracking" / "operations.jsonl", "ab") as file:
        file.write(b'{"run": "trial", "kind": "metrics", "ti')
    with delivered() as tracker:
        tracker.log("trial", {"val/nll": 0.5}, 2)
    points = client.get_metric_history(tracker.run_id("trial"), "val/nll")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5)]


@pytest.mark.parametrize("damage", ["{", '{"offset": 10000000}', None], ids=["cut", "behind-the-end", "gone"])
def test_told_again_the_store_is_as_told_once(
    delivered: Open, client: MlflowClient, tmp_path: Path, damage: str | None
) -> None:
    (tmp_path / "figure.png").write_bytes(b"png")
    with delivered(tmp_path.name) as tracker:
        tracker.start_run("study", params={"trials": 3}, config="trials: 3\n")
        tracker.start_run("trial", parent="study")
        for step in range(1, 30):
            tracker.log("trial", {"val/nll": 1 / step, "val/error": 2.0}, step)
        tracker.log_file("trial", tmp_path / "figure.png")
        tracker.end_run("trial", "FINISHED")
    before = everything(client, tmp_path.name)
    state = tmp_path / "tracking" / "delivered.json"
    state.unlink()
    if damage is not None:
        state.write_text(damage)
    with delivered(tmp_path.name) as tracker:
        pass
    assert everything(client, tmp_path.name) == before
    assert len(before) == 2


def everything(client: MlflowClient, experiment: str) -> dict[str, tuple]:
    """All that an experiment holds, every point of every metric included."""
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {
        run.info.run_id: (
            run.to_dictionary(),
            [file.path for file in client.list_artifacts(run.info.run_id)],
            {
                name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
        )
        for run in found
    }


def test_a_deleted_experiment_is_restored(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    gone = Tracker(tmp_path, uri, "gone", "k")
    client.delete_experiment(gone.experiment_id)
    assert Tracker(tmp_path, uri, "gone", "k").experiment_id == gone.experiment_id


def test_artifacts_lie_beside_the_store(delivered: Open, client: MlflowClient, uri: str) -> None:
    folder = Path(uri.removeprefix("sqlite:///")).parent
    with delivered() as tracker:
        pass
    assert client.get_experiment(tracker.experiment_id).artifact_location == (folder / "mlartifacts/study").as_uri()


def test_making_a_store_takes_away_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    """The names of databases are no patterns, and other folders may begin with them."""
    folders = (".con[fi]g-backup", ".bbh_dist-making-config-x", ".bbh_dist-making-con[fi]g-x")
    for name in folders:
        (tmp_path / name).mkdir()
    connect(f"sqlite:///{tmp_path / 'con[fi]g'}", "x")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"con[fi]g", ".con[fi]g-backup", ".bbh_dist-making-config-x"}


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
