"""Workers that stand from trial to trial: pruned and failed trials leave them to the next, lost ones are replaced."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, os, signal, subprocess, sys
from pathlib import Path
from bbh_dist.cluster.session import _close_to_others
_close_to_others()  # as the commands do it, before Ray is imported
from ray.tune.schedulers import FIFOScheduler
from bbh_dist.cluster.jobs import Job
from bbh_dist.cluster.run import run_jobs
from bbh_dist.cluster.session import cluster
from bbh_dist.config import Experiment

two = {"task": "digits5", "network": "mlp:8", "method": {"name": "map"}, "parallel": {"workers": 2}}
poisoned = {"method": {"name": "map", "prior_stddev": 1e-6}, "optimizer": {"name": "sgd", "lr": 0.01}}
huge = {"method": {"name": "bbh", "generator": {"kind": "layerwise", "hidden": [1_000_000, 1_000_000]}}}  # 4 terabytes
ways = [{"epochs": 100_000}, {"epochs": 6}, poisoned, {"epochs": 3}, huge, {"epochs": 2}]
jobs = [Job(f"trial-{i}", Experiment.model_validate({**two, **way}), i, {}) for i, way in enumerate(ways)]

def children(parent, word):
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    fields = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return sorted(int(pid) for pid, ppid, args in fields if int(ppid) == parent and word in args)

def workers():
    return [pid for raylet in children(os.getpid(), "raylet") for pid in children(raylet, "RayTrainWorker")]

class Source:
    def next_job(self): return jobs.pop(0)
    def ended(self, job, outcome): print(json.dumps(["ended", job.name, outcome.state, outcome.reason]), flush=True)

class Observer:
    def started(self, job): pass
    def ended(self, job, outcome): pass
    def reported(self, job, metrics):
        seen = workers()
        if job.name != "trial-0":
            print(json.dumps([job.name, metrics["epoch"], seen]), flush=True)
        if (job.name, metrics["epoch"]) == ("trial-0", 1): print(json.dumps(["first", seen]), flush=True)
        if (job.name, metrics["epoch"]) == ("trial-1", 2) and not killed:
            killed.append(os.kill(seen[0], signal.SIGKILL))

killed = []

class StopTheFirst(FIFOScheduler):
    def on_trial_result(self, controller, trial, result):
        return self.STOP if trial.config["name"] == "trial-0" else self.CONTINUE

def main():
    with cluster(None, False) as available:
        assert available.cpus >= 2
        run_jobs(Source(), 6, parallel=jobs[0].experiment.parallel, concurrent=1, scheduler=StopTheFirst(),
                 observers=[Observer()], data=".", folder=Path(sys.argv[1]))
        run_jobs(Source(), 1, parallel=two_more.experiment.parallel, concurrent=1, scheduler=None,
                 observers=[], data=".", folder=Path(sys.argv[1]))

two_more = Job("after", Experiment.model_validate({**two, "epochs": 1}), 6, {})
jobs.append(two_more)
main()
"""


@pytest.mark.cluster
def test_workers_outlive_pruned_and_failed_trials_and_lost_ones_are_replaced(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=tmp_path,
        # Where the system promises more memory than it has, the large trial would end the machine.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    ended = [line[1:] for line in said if line[0] == "ended"]
    assert [line[:2] for line in ended] == [
        ["trial-0", "PRUNED"],
        ["trial-1", "COMPLETE"],
        ["trial-2", "FAIL"],
        ["trial-3", "COMPLETE"],
        ["trial-4", "FAIL"],
        ["trial-5", "COMPLETE"],  # by other workers: a failure of one ends its group
        ["after", "COMPLETE"],  # what the workers before it held is free again
    ]
    assert "not finite" in ended[2][2]
    assert "allocate memory" in ended[4][2]
    (first,) = [line[1] for line in said if line[0] == "first"]
    reported = {name: [line for line in said if line[0] == name] for name in ("trial-1", "trial-3")}
    assert reported["trial-1"][0][2] == first  # a pruned trial's workers train the next one
    assert sorted({line[1] for line in reported["trial-1"]}) == [1, 2, 3, 4, 5, 6]
    after = reported["trial-1"][-1][2]
    assert not set(after) & set(first)
    assert [line[1:] for line in reported["trial-3"]] == [[epoch, after] for epoch in (1, 2, 3)]
