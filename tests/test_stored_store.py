"""A run goes on with the tracking store that it began with: whether that answers counts, not the environment's."""

from pathlib import Path

import pytest
from front_door import FILES, exit_code

from bbh_dist.config import load_experiment, to_yaml
from bbh_dist.storage import RunFolder

DEAD = "postgresql://me:hidden@127.0.0.1:9/x"


@pytest.fixture(autouse=True)
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `train --job job.yaml` keeps its run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    (tmp_path / "job.yaml").write_text(FILES["job.yaml"])
    return tmp_path / "runs" / "job"


@pytest.mark.parametrize(
    ("command", "arguments", "complete"),
    [("train", ["--resume"], True), ("tracking", ["sync", "runs/job"], False)],
)
def test_a_stored_database_that_is_away_is_one_line(
    run_folder: Path, capfd: pytest.CaptureFixture[str], command: str, arguments: list[str], complete: bool
) -> None:
    """SQLAlchemy would try for two minutes."""
    record = {"tracking_uri": DEAD, "experiment": "job", "tracking_key": "0" * 32}
    RunFolder(run_folder).create(to_yaml(load_experiment(Path("job.yaml"))), record)
    assert exit_code(command, *arguments, complete=complete) == 2
    errors = capfd.readouterr().err
    assert errors.startswith(f"{run_folder / 'run.json'}: tracking_uri: no database answers there")
    assert errors.count("\n") == 1
    assert "hidden" not in errors


def test_a_run_is_resumed_whatever_store_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code("train", "--json", "out.json") == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert exit_code("train", "--resume", "--json", "out.json") == 0


def test_what_had_only_begun_needs_the_environments_store(
    run_folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder.mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    assert exit_code("train", "--resume") == 2
    assert capfd.readouterr().err.startswith("MLFLOW_TRACKING_URI: no database answers there")
    assert list(run_folder.iterdir()) == []
