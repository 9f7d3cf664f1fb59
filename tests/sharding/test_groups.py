"""Real gloo workers: what they exchange arrives, is counted, and is differentiated."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from group_workers import GROUPS

OUTCOMES = [(part.__name__, size, rank) for size, parts in GROUPS for part in parts for rank in range(size)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all groups of workers wrote."""
    path = tmp_path_factory.mktemp("groups")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(Path(__file__).parent / "group_workers.py"), str(path)]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            errors = process.communicate(timeout=100)[1]
        except BaseException:
            os.killpg(process.pid, 9)
            raise
    assert process.returncode == 0, errors
    return path


@pytest.mark.parametrize(("part", "size", "rank"), OUTCOMES)
def test_a_worker(folder: Path, part: str, size: int, rank: int) -> None:
    path = folder / f"{part}-{size}-{rank}.txt"
    assert path.exists(), "another worker failed"
    assert path.read_text() == "ok"
