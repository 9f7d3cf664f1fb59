"""A pruned trial of several workers gives their CPUs back, or the next one would wait for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from ray.tune.schedulers import FIFOScheduler
from bbh_dist.cluster.jobs import Job
from bbh_dist.cluster.run import run_jobs
from bbh_dist.cluster.session import cluster
from bbh_dist.config import Experiment

two = {"task": "digits5", "network": "mlp:8", "method": {"name": "map"}, "parallel": {"workers": 2}}
epochs = [100_000, 2]
jobs = [Job(f"trial-{i}", Experiment.model_validate({**two, "epochs": n}), i, {}) for i, n in enumerate(epochs)]

class Source:
    def next_job(self): return jobs.pop(0)
    def ended(self, job, outcome): print(job.name, outcome.state, flush=True)

class StopTheFirst(FIFOScheduler):
    def on_trial_result(self, controller, trial, result):
        return self.STOP if trial.config["name"] == "trial-0" else self.CONTINUE

def main():
    with cluster(None, False) as available:
        assert available.cpus >= 2
        run_jobs(Source(), 2, parallel=jobs[0].experiment.parallel, concurrent=1, scheduler=StopTheFirst(),
                 observers=[], data=".", folder=Path(sys.argv[1]))

main()
"""


@pytest.mark.cluster
def test_the_trial_after_a_pruned_one_has_its_workers(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("trial-")] == [
        "trial-0 PRUNED",
        "trial-1 COMPLETE",
    ]
