"""jobs/cluster_mlflow.sh: PostgreSQL and artifacts in one folder, found again at the next start."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lacks() -> str:
    """What this machine lacks for the server; empty where it has all."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")) and shutil.which("initdb") is None:
        return "PostgreSQL is missing (postgresql)"
    if find_spec("psycopg2") is None:
        return "psycopg2 is missing: pip install -e '.[cluster]'"
    return "" if os.geteuid() else _lacks_another_user()


def _lacks_another_user() -> str:
    """PostgreSQL does not run as root, who therefore calls itself postgres in a namespace."""
    tried = subprocess.run([*as_user(), "id", "-u"], capture_output=True)
    return "" if tried.returncode == 0 else "root cannot take another user's number here"


def as_user() -> list[str]:
    return [] if os.geteuid() else ["unshare", "--user", "--map-user=postgres", "--map-group=postgres"]


pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(lacks()), reason=lacks())]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """URI of the server while it runs; it must end, and PostgreSQL with it."""
    port = free_port()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [*as_user(), str(ROOT / "jobs" / "cluster_mlflow.sh"), str(folder), "127.0.0.1", str(port)],
        env={**os.environ, "PATH": path, "HOME": str(folder.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
    assert not (folder / "postgres" / "postmaster.pid").exists()


def wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError("the server did not come")


def test_a_run_is_in_postgresql_and_is_found_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "tracking"
    with server(folder) as uri:
        job = [
            "--job",
            str(ROOT / "jobs" / "digits5_map.yaml"),
            "--set",
            "epochs=2",
            "--storage",
            str(tmp_path / "runs"),
        ]
        train = [sys.executable, "-m", "bbh_dist.train", *job, "--tracking-uri", uri]
        done = subprocess.run(train, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert list((folder / "artifacts").rglob("config.yaml"))
    assert list((folder / "artifacts").rglob("*.png"))
    with server(folder) as uri:
        ask = "import sys, mlflow; c = mlflow.MlflowClient(sys.argv[1]); e = c.get_experiment_by_name('digits5_map'); "
        ask += "r = c.search_runs([e.experiment_id])[0]; print(r.info.status, len(c.get_metric_history(r.info.run_id, "
        ask += "'val/nll')))"
        done = subprocess.run([sys.executable, "-c", ask, uri], capture_output=True, text=True, timeout=300)
        assert done.stdout == "FINISHED 2\n", done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"tracking", "runs"}


@pytest.mark.skipif(os.geteuid() != 0, reason="it refuses root alone, and this user is not root")
def test_it_does_not_run_as_root(tmp_path: Path) -> None:
    command = [str(ROOT / "jobs" / "cluster_mlflow.sh"), str(tmp_path / "tracking")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "PostgreSQL does not run as root: log in as another user\n")
    assert list(tmp_path.iterdir()) == []
