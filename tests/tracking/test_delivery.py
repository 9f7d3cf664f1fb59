"""What a spool holds arrives once and in order, whatever dies or is missing meanwhile."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient

from bbh_dist.tracking import Tracker, delivery
from bbh_dist.tracking.spool import Spool
from bbh_dist.tracking.store import _alone_at

KILLED_BEFORE_THE_OFFSET_IS_STORED = """
import os, signal, sys
from pathlib import Path
from bbh_dist.tracking import Tracker
from bbh_dist.tracking.spool import Spool

Spool.store = lambda self, delivered: os.kill(os.getpid(), signal.SIGKILL)
folder = Path(sys.argv[1])
tracker = Tracker(folder / "run", f"sqlite:///{folder}/mlflow.db", "study", key="k")
with tracker.delivering():
    tracker.start_run("study")
    tracker.start_run("trial", parent="study", params={"lr": 0.1}, config="lr: 0.1")
    for step in range(1, 101):
        tracker.log("trial", {"val/nll": 1 / step, "val/error": 2.0}, step)
"""

ONE_OF_EIGHT = """
import sys
from pathlib import Path
from bbh_dist.tracking import Tracker

folder, name = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
tracker = Tracker(folder / name, f"sqlite:///{folder}/mlflow.db", "study", key=name)
with tracker.delivering():
    tracker.start_run(name)
    for step in range(1, 201):
        tracker.log(name, {f"val/{metric}": step / 7 for metric in range(5)}, step)
    tracker.end_run(name, "FINISHED")
sys.exit(tracker.left + tracker.refused)
"""


def open_tracker(folder: Path, name: str = "run") -> Tracker:
    (folder / name).mkdir(exist_ok=True)
    return Tracker(folder / name, f"sqlite:///{folder}/mlflow.db", "study", key="k")


def history(tracker: Tracker, name: str, metric: str = "val/nll") -> list[int]:
    run_id = tracker.run_id(name)
    assert run_id is not None
    return [point.step for point in MlflowClient(tracking_uri=tracker.uri).get_metric_history(run_id, metric)]


def test_a_driver_killed_between_delivery_and_offset_tells_nothing_twice(tmp_path: Path, empty_store: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(empty_store)
    (tmp_path / "run").mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED_BEFORE_THE_OFFSET_IS_STORED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("study").experiment_id
    before = {run.info.run_id for run in client.search_runs([experiment])}
    assert len(before) == 2  # they had arrived
    again = open_tracker(tmp_path)
    with again.delivering():
        again.start_run("trial", parent="study")
        again.log("trial", {"val/nll": 9.0}, 100)  # as a resumed driver tells its last epoch again
        again.kill_all()
    found = client.search_runs([experiment])
    assert {run.info.run_id for run in found} == before
    assert {run.info.status for run in found} == {"KILLED"}
    assert history(again, "trial") == history(again, "trial", "val/error") == list(range(1, 101))
    assert client.get_run(again.run_id("trial")).data.tags["mlflow.parentRunId"] == again.run_id("study")


def test_a_store_that_is_away_at_the_end_is_told_later(
    tmp_path: Path, empty_store: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(delivery, "_SECONDS_TO_WAIT", 1.0)
    store, away = tmp_path / "store", tmp_path / "away"
    store.mkdir()
    (store / "mlflow.db").write_bytes(empty_store)
    (tmp_path / "run").mkdir()
    tracker = Tracker(tmp_path / "run", f"sqlite:///{store}/mlflow.db", "study", key="k")
    store.rename(away)  # as a file system that is unmounted
    with tracker.delivering():
        tracker.start_run("trial")
        for step in range(1, 2001):
            tracker.log("trial", {"val/nll": 1 / step}, step)
        tracker.end_run("trial", "FINISHED")
    assert tracker.left == 2002
    assert tracker.run_id("trial") is None
    line = next(line for line in capsys.readouterr().err.splitlines() if "has not taken" in line)
    assert line.startswith("the tracking store has not taken 2002 entries (")
    assert line.endswith(f"python -m bbh_dist.tracking sync {tmp_path / 'run'}")
    away.rename(store)
    again = Tracker(tmp_path / "run", f"sqlite:///{store}/mlflow.db", "study", key="k")
    with again.delivering():
        pass
    assert again.left == 0
    assert history(again, "trial") == list(range(1, 2001))
    assert MlflowClient(tracking_uri=again.uri).get_run(again.run_id("trial")).info.status == "FINISHED"


def test_a_queue_of_any_length_takes_the_same_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "tracking")
    spool.open()
    for step in range(5_000):
        spool.put({"run": "trial", "kind": "metrics", "time": 0, "step": step, "values": {"val/nll": 1.0}})
    assert spool._kept == []
    read, offset = [], 0
    while True:
        operations, end = spool.read(offset, 200)
        if end == offset:
            break
        assert len(operations) <= 200
        read += [operation["step"] for operation in operations]
        offset = end
    assert read == list(range(5_000))
    spool.close()


def test_a_full_disk_costs_the_spool_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: writes stop in the middle of a line."""
    spool = Spool(tmp_path / "tracking")
    spool.open()
    code = """
import resource, signal, sys
from pathlib import Path
from bbh_dist.tracking.spool import Spool
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]))
spool.open()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for step in range(100):
    spool.put({"run": "trial", "kind": "metrics", "step": step})
full = Path(sys.argv[1], "operations.jsonl").read_bytes()
assert 900 < len(full) <= 1000 and full.endswith(b"\\n"), full
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
sys.exit(spool.close())
"""
    done = subprocess.run([sys.executable, "-c", code, str(spool.folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [operation["step"] for operation in spool] == list(range(100))
    spool.close()


def test_a_fresh_local_store_is_made_by_one_process_at_a_time(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    entered = threading.Event()

    def enter() -> None:
        with _alone_at(f"sqlite:///{tmp_path}/mlflow.db"):
            entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.2)
    os.close(descriptor)
    assert entered.wait(60)
    thread.join()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_eight_processes_on_a_fresh_tracking_store_lose_no_metric(tmp_path: Path) -> None:
    names = [f"run-{number}" for number in range(8)]
    for name in names:
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", ONE_OF_EIGHT, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for name in names
    ]
    for process in processes:  # all at once
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert Counter(run.info.run_name for run in found) == Counter(names)
    for run in found:
        assert run.info.status == "FINISHED"
        for metric in range(5):
            points = client.get_metric_history(run.info.run_id, f"val/{metric}")
            assert [point.step for point in points] == list(range(1, 201))
