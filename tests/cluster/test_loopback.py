"""A cluster that is started on this machine, with a run of two workers on it, listens on loopback only."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
from bbh_dist.cluster.jobs import Job
from bbh_dist.cluster.session import cluster
from bbh_dist.config import Experiment

two = {"task": "digits5", "network": "mlp:8", "method": {"name": "map"}, "parallel": {"workers": 2}, "epochs": 2}
job = Job("pair", Experiment.model_validate(two), 0, {})
jobs = [job]

def listeners():
    import psutil  # comes with Ray
    found = []
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        for one in process.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN:
                found.append((process.name(), one.laddr.ip))
    return found

class Source:
    def next_job(self): return jobs.pop(0)
    def ended(self, job, outcome): print(json.dumps(["ended", outcome.state]), flush=True)

class Observer:
    def started(self, job): pass
    def ended(self, job, outcome): pass
    def reported(self, job, metrics): print(json.dumps(["listen", listeners()]), flush=True)

with cluster(None, False):
    from bbh_dist.cluster.run import run_jobs  # as the commands do: Ray reads its settings when it is imported
    run_jobs(Source(), 1, parallel=job.experiment.parallel, concurrent=1, scheduler=None,
             observers=[Observer()], data=".", folder=Path(sys.argv[1]))
"""


@pytest.mark.cluster
def test_servers_bind_to_loopback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert ["ended", "COMPLETE"] in said
    found = [tuple(one) for line in said if line[0] == "listen" for one in line[1]]
    assert {"raylet", "gcs_server"} <= {name for name, _ in found}  # what is looked for is seen at all
    loopback = ("127.0.0.1", "::ffff:127.0.0.1", "::1")
    store = ("ray::RayTrainWorker", "::")  # torch's TCPStore, by which workers meet: it has no setting for an address
    assert {one for one in found if one[1] not in loopback} <= {store}
