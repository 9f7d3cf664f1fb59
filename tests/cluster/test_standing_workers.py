"""Workers that stand from trial to trial: pruned and failed trials leave them to the next, lost ones are replaced."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """
import json, os, signal, subprocess, sys
from pathlib import Path
from bbh_dist.cluster.session import _close_to_others
_close_to_others()  # as the commands do it, before Ray is imported
from ray._private.state import actors
from ray.tune.schedulers import FIFOScheduler
from bbh_dist.cluster.jobs import Job
from bbh_dist.cluster.run import run_jobs
from bbh_dist.cluster.session import cluster
from bbh_dist.config import Experiment

studies = json.loads(sys.argv[2])
named = [(name, Experiment.model_validate(way)) for study in studies for name, way in study.items()]
jobs = [Job(name, experiment, i, {}) for i, (name, experiment) in enumerate(named)]
parallel = jobs[0].experiment.parallel

def children(parent, word):
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    fields = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return sorted(int(pid) for pid, ppid, args in fields if int(ppid) == parent and word in args)

def workers():
    return [pid for raylet in children(os.getpid(), "raylet") for pid in children(raylet, "RayTrainWorker")]

def with_checkpoints():
    return [path.parent.name for path in Path(sys.argv[1]).glob("workers/*/checkpoints")]

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
            print(json.dumps(["kept", job.name, with_checkpoints()]), flush=True)
        if (job.name, metrics["epoch"]) == ("trial-0", 1): print(json.dumps(["first", seen]), flush=True)
        if (job.name, metrics["epoch"]) == ("trial-1", 2) and not killed:
            killed.append(os.kill(seen[0], signal.SIGKILL))

killed = []

class StopTheFirst(FIFOScheduler):
    rungs = [1]

    def on_trial_result(self, controller, trial, result):
        return self.STOP if trial.config["name"] == "trial-0" else self.CONTINUE

def main():
    with cluster(None, False) as available:
        assert available.cpus >= 2
        for study in studies:
            run_jobs(Source(), len(study), parallel=parallel, concurrent=1, scheduler=StopTheFirst(),
                     observers=[Observer()], data=".", folder=Path(sys.argv[1]))
        print(json.dumps(["actors", sorted({actor["ActorClassName"] for actor in actors().values()})]), flush=True)

main()
"""


TWO = {"task": "digits5", "network": "mlp:8", "method": {"name": "map"}, "parallel": {"workers": 2}}
POISONED = {"method": {"name": "map", "prior_stddev": 1e-6}, "optimizer": {"name": "sgd", "lr": 0.01}}
HUGE = {"method": {"name": "bbh", "generator": {"kind": "layerwise", "hidden": [1_000_000, 1_000_000]}}}  # 4 terabytes

pytestmark = pytest.mark.cluster


def test_workers_outlive_pruned_and_failed_trials_and_lost_ones_are_replaced(tmp_path: Path) -> None:
    trials = {"trial-0": {"epochs": 100_000}, "trial-1": {"epochs": 6}, "trial-2": POISONED, "trial-3": {"epochs": 3}}
    said = _said(tmp_path, trials, {"after": {"epochs": 1}})
    ended = [line[1:] for line in said if line[0] == "ended"]
    assert [line[:2] for line in ended] == [
        ["trial-0", "PRUNED"],
        ["trial-1", "COMPLETE"],
        ["trial-2", "FAIL"],
        ["trial-3", "COMPLETE"],
        ["after", "COMPLETE"],  # what the workers before it held is free again
    ]
    assert "not finite" in ended[2][2]
    (first,) = [line[1] for line in said if line[0] == "first"]
    (classes,) = [line[1] for line in said if line[0] == "actors"]
    assert "RayTrainWorker" in classes
    assert not {"DatasetManager", "PreemptionWatcher"} & set(classes)  # processes of which the runs have no use
    reported = {name: [line for line in said if line[0] == name] for name in ("trial-1", "trial-3")}
    assert reported["trial-1"][0][2] == first  # a pruned trial's workers train the next one
    assert sorted({line[1] for line in reported["trial-1"]}) == [1, 2, 3, 4, 5, 6]
    after = reported["trial-1"][-1][2]
    assert not set(after) & set(first)
    assert [line[1:] for line in reported["trial-3"]] == [[epoch, after] for epoch in (1, 2, 3)]
    assert len([line for line in said if line[0] == "kept" and line[2]]) > 1
    assert all(line[2] in ([], [line[1]]) for line in said if line[0] == "kept")  # of no trial that has ended
    assert not list(tmp_path.glob("workers/*/checkpoints"))


def test_a_trial_that_has_no_memory_is_followed_by_one_with_other_workers(tmp_path: Path) -> None:
    said = _said(tmp_path, {"small": {"epochs": 1}, "huge": HUGE, "next": {"epochs": 2}})
    ended = [line[1:] for line in said if line[0] == "ended"]
    # A failure of one worker ends its group.
    assert [line[:2] for line in ended] == [["small", "COMPLETE"], ["huge", "FAIL"], ["next", "COMPLETE"]]
    assert "allocate memory" in ended[1][2]
    before, after = ({tuple(line[2]) for line in said if line[0] == name} for name in ("small", "next"))
    assert len(before) == len(after) == 1
    assert not set(*before) & set(*after)


def _said(folder: Path, *studies: dict[str, dict[str, Any]]) -> list[Any]:
    """What the script prints of studies that follow each other on one cluster."""
    named = [{name: TWO | way for name, way in study.items()} for study in studies]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), json.dumps(named)],
        cwd=folder,
        # Where the system promises more memory than it has, the large trial would end the machine.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30)),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
