"""A cluster that has no node for a run's workers, and an autoscaler that can start them, as `ray up` leaves it."""

import subprocess
from pathlib import Path

import pytest
from training_processes import in_namespaces, skip_without_namespaces


@pytest.mark.cluster
def test_nodes_come_for_a_group_of_workers(tmp_path: Path) -> None:
    skip_without_namespaces()
    command = in_namespaces("growing_cluster.py", str(tmp_path), "2")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout.splitlines()[-1]) == 2
    assert [(tmp_path / rank).read_text() for rank in ("0", "1")] == ["2", "2"]
