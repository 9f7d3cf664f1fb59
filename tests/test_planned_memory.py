"""What `plan` predicts is what a training process takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bbh_dist.config import Experiment
from bbh_dist.speed import experiments
from bbh_dist.speed.processes import Processes


@pytest.mark.cluster
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to read memory from")
@pytest.mark.parametrize("name", ["map", "bbh-single", "bbh-sliced"])
@pytest.mark.parametrize("workers", [1, 2])
def test_peak_memory_within_15_percent_and_bytes_on_the_wire_exactly(name: str, workers: int, tmp_path: Path) -> None:
    settings = experiments.experiment(name, kl_samples=5).model_dump(mode="json")
    settings["parallel"] |= {"workers": workers, "cpus_per_worker": 1}
    job, found = tmp_path / "job.yaml", tmp_path / "plan.json"
    job.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "bbh_dist.plan", "--job", str(job), "--json", str(found)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    planned = json.loads(found.read_text())
    with Processes("sharded", Experiment.model_validate(settings), workers) as group:
        group.ready()
        for _ in range(3):
            group.step()
        assert planned["wire"] == group.traffic
        assert planned["per_worker"]["peak"] == pytest.approx(group.peak_memory(), rel=0.15)
