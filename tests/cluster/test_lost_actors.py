"""A one-worker trial whose process dies, or loses its GPU, is started again in another, whenever that happens."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from bbh_dist.cluster.session import _close_to_others
_close_to_others()  # as the commands do it, before Ray is imported
from bbh_dist.cluster import run
from bbh_dist.cluster.jobs import Job
from bbh_dist.cluster.session import cluster
from bbh_dist.config import Experiment, override

folder = Path(sys.argv[1])
base = Experiment.model_validate({"task": "digits5", "network": "mlp:8", "method": {"name": "map"}, "epochs": 2})
names = ["before", "dies", "between", "loses its GPU", "after", "always loses its GPU"]
jobs = [Job(name, override(base, {"seed": seed}), seed, {}) for seed, name in enumerate(names)]

def is_first(what):
    try:
        (folder / what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

class Trial(run.OneWorkerTrial):
    def setup(self, config):
        import torch
        from bbh_dist.cluster import trainables

        def refuse():
            raise torch.AcceleratorError("CUDA error: device-side assert triggered\\nFor debugging consider more.\\n")

        class Trainer(trainables.Trainer):
            def __init__(self, experiment, *arguments, **settings):
                if experiment.seed == 1 and is_first("died"):
                    os.kill(os.getpid(), signal.SIGKILL)
                super().__init__(experiment, *arguments, **settings)

            def run_epoch(self):
                if self.experiment.seed == 5 or (self.experiment.seed == 3 and is_first("lost")):
                    torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, refuse
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()
                return super().run_epoch()

        trainables.Trainer = Trainer
        super().setup(config)

class Source:
    def next_job(self): return jobs.pop(0)
    def ended(self, job, outcome): print(json.dumps([job.name, outcome.state, outcome.reason]), flush=True)

def main():
    run.OneWorkerTrial = Trial
    with cluster(None, False):
        run.run_jobs(Source(), len(jobs), parallel=base.parallel, concurrent=1, scheduler=None, observers=[], data=".",
                     folder=folder)

main()
"""

pytestmark = pytest.mark.cluster


def test_a_trial_whose_process_is_lost_is_started_again_in_another(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    ended = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert {path.name for path in tmp_path.iterdir()} >= {"died", "lost"}
    assert ended[:-1] == [
        ["before", "COMPLETE", None],
        ["dies", "COMPLETE", None],  # while it was built in the process of the one before
        ["between", "COMPLETE", None],
        ["loses its GPU", "COMPLETE", None],
        ["after", "COMPLETE", None],
    ]
    assert ended[-1][:2] == ["always loses its GPU", "FAIL"]
    assert "AcceleratorError: CUDA error: device-side assert triggered" in ended[-1][2]
