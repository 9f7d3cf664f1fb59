"""A tracking server that goes away while real commands run: nothing waits for it, and nothing is missing afterwards."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from servers import Proxy, Server, wait_for

pytestmark = pytest.mark.cluster

JOB = """
{task: digits5, network: 'mlp:8', epochs: 100000, batch_size: 50, method: {name: map}, parallel: {cpus_per_worker: 1},
 checkpoint_every_epochs: 1000}
"""
SPACE = """
base:
  {task: digits5, network: 'mlp:8', epochs: 60, batch_size: 50, method: {name: map}, parallel: {cpus_per_worker: 1}}
search: {optimizer.lr: {loguniform: [1.0e-3, 1.0e-2]}}
objectives: [{metric: val/nll, direction: minimize}]
scheduler: {name: none}
trials: 4
final: {top: 1, seeds: [0]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of ours in a folder; what it says goes to `log`."""
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def training(folder: Path, uri: str, *more: str) -> list[str]:
    (folder / "job.yaml").write_text(JOB)
    return ["bbh_dist.train", "--job", "job.yaml", "--name", folder.name, "--tracking-uri", uri, *more]


def finish(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", *arguments]
    return subprocess.run(asked, cwd=folder, capture_output=True, text=True, timeout=400, check=False)


def spool(folder: Path, name: str | None = None) -> list[dict]:
    path = folder / "runs" / (name or folder.name) / "tracking" / "operations.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def epochs(folder: Path) -> int:
    """How many epochs the run has logged, whoever has heard of it."""
    return max((each["step"] for each in spool(folder) if each["kind"] == "metrics"), default=0)


def delivered(folder: Path) -> int:
    path = folder / "runs" / folder.name / "tracking" / "delivered.json"
    return json.loads(path.read_text())["offset"] if path.exists() else 0


def runs(server: Server, folder: Path, experiment: str = "job") -> list[Run]:
    client = MlflowClient(tracking_uri=server.uri)
    found = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return [run for run in found if run.info.run_name == folder.name] if experiment == "job" else found


def assert_every_metric_once(server: Server, run: Run, steps: int) -> None:
    client = MlflowClient(tracking_uri=server.uri)
    assert {"val/nll", "train/loss", "time/step_ms"} <= run.data.metrics.keys()
    for name in run.data.metrics:
        points = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in points] == list(range(1, steps + 1)), name


def break_it(how: str, server: Server, proxy: Proxy) -> Callable[[], None]:
    """Take the server away; what is returned brings it back."""
    if how == "down":
        server.stop()
        return server.start
    if how == "slow":
        server.freeze()
        return server.thaw
    proxy.mode = {"answers 500": "refuse", "answers 500 and does it": "forget"}[how]
    return lambda: setattr(proxy, "mode", "pass")


@pytest.mark.parametrize("how", ["down", "slow", "answers 500", "answers 500 and does it"])
def test_a_tracking_server_that_is_away_never_stops_training(
    how: str, server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    uri = server.uri if how in ("down", "slow") else proxy.uri
    with running(tmp_path, *training(tmp_path, uri)) as process:
        wait_for(lambda: delivered(tmp_path) > 0, "the first metrics")
        bring_back = break_it(how, server, proxy)
        try:
            before, told = epochs(tmp_path), delivered(tmp_path)
            wait_for(lambda: "is away" in (tmp_path / "log").read_text(), "the line that says so")
            wait_for(lambda: epochs(tmp_path) > before + 20, "epochs without a server")
            assert process.poll() is None
            behind = delivered(tmp_path)
        finally:
            bring_back()
        wait_for(lambda: delivered(tmp_path) > behind >= told, "what was logged")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    log = (tmp_path / "log").read_text()
    assert "the tracking store is back" in log
    assert "has not taken" not in log
    (run,) = runs(server, tmp_path)
    assert run.info.status == "KILLED"
    assert_every_metric_once(server, run, epochs(tmp_path))


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_what_is_left_when_a_run_ends_is_delivered_by_sync(
    end: signal.Signals, server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    folder = str(tmp_path / "runs" / tmp_path.name)
    with running(tmp_path, *training(tmp_path, proxy.uri)) as process:
        wait_for(lambda: delivered(tmp_path) > 0, "the first metrics")
        refused = finish(tmp_path, "bbh_dist.tracking", "sync", folder)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert refused.stderr.startswith("sync: another process works on it now")
        proxy.mode = "refuse"
        before = epochs(tmp_path)
        wait_for(lambda: epochs(tmp_path) > before + 20, "epochs without a server")
        process.send_signal(end)
        assert process.wait(timeout=120) == (130 if end == signal.SIGINT else -signal.SIGKILL)
    if end == signal.SIGINT:
        assert f"when it answers: python -m bbh_dist.tracking sync {folder}" in (tmp_path / "log").read_text()
    for command in (["bbh_dist.tracking", "sync", folder], training(tmp_path, proxy.uri, "--resume")):
        away = finish(tmp_path, *command)
        assert (away.returncode, away.stderr.count("\n")) == (2, 1)
        assert "the tracking store must answer" in away.stderr
    proxy.mode = "pass"
    done = finish(tmp_path, "bbh_dist.tracking", "sync", folder)
    assert done.returncode == 0, done.stderr
    (run,) = runs(server, tmp_path)
    assert run.info.status == "KILLED"
    assert_every_metric_once(server, run, epochs(tmp_path))


def test_a_study_goes_on_while_the_tracking_server_is_away(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    name = f"study-{tmp_path.name}"[:60]
    arguments = ["--space", "space.yaml", "--name", name, "--tracking-uri", proxy.uri, "--json", "out.json"]
    with running(tmp_path, "bbh_dist.tune", *arguments) as process:
        wait_for(lambda: Counter(each["kind"] for each in spool(tmp_path, name))["start"] > 1, "the first trial")
        proxy.mode = "forget"  # requests arrive, nobody hears of it: the worst case for doing things once
        ended = lambda: [each for each in spool(tmp_path, name) if each.get("status") == "FINISHED"]  # noqa: E731
        wait_for(lambda: len(ended()) >= 2 and proxy.refused > 2, "trials without a server")
        proxy.mode = "pass"
        assert process.wait(timeout=300) == 0, (tmp_path / "log").read_text()
    found = runs(server, tmp_path, name)
    names = Counter(run.info.run_name for run in found)
    assert set(names) == {f"study {name}", *(f"trial-{number}" for number in range(4)), *names}
    assert (len(found), set(names.values())) == (6, {1})
    assert {run.info.status for run in found} == {"FINISHED"}
    by_id = {run.info.run_id: run for run in found}
    result = json.loads((tmp_path / "out.json").read_text())
    assert by_id[result["parent_run_id"]].info.run_name == f"study {name}"
    for trial in result["trials"]:
        run = by_id[trial["run_id"]]
        assert run.info.run_name == f"trial-{trial['number']}"
        assert run.data.tags["mlflow.parentRunId"] == result["parent_run_id"]
        history = MlflowClient(tracking_uri=server.uri).get_metric_history(run.info.run_id, "val/nll")
        assert [point.step for point in history] == list(range(1, 61))


def test_a_server_that_takes_calls_and_never_answers_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with running(tmp_path, "bbh_dist.train", "--job", "job.yaml", "--tracking-uri", uri) as process:
            assert process.wait(timeout=100) == 2
    assert (tmp_path / "log").read_text().startswith("--tracking-uri: the tracking store must answer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.yaml", "log"]
