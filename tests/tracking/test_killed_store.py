"""A process that is killed while it makes the local tracking store leaves none, and the next one makes it."""

import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONNECT = """
import sys
from bbh_dist.tracking.store import connect
print(connect(sys.argv[1], "x")[1])
"""


@pytest.mark.cluster
@pytest.mark.parametrize("size", [60_000, 300_000])
def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path, size: int) -> None:
    command = [sys.executable, "-c", CONNECT, f"sqlite:///{tmp_path / 'mlflow.db'}"]
    with subprocess.Popen(command) as process:
        while sum(path.stat().st_size for path in tmp_path.glob(".bbh_dist-making-mlflow.db-*/unfinished.db")) < size:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (again.returncode, again.stdout.strip()) == (0, "1"), again.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
