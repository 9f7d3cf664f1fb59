"""A cluster of three hosts from `ray up` to `ray down`, by the README's commands, with a host lost on the way."""

import json
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from namespace_hosts import ROOT, Network, missing, until

_LACKS = missing() or ("" if find_spec("aiohttp_cors") else "the job server needs pip install -e '.[cluster]'")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(_LACKS), reason=_LACKS)]

HOSTS = {"launcher": "10.77.0.1", "head": "10.77.0.10", "one": "10.77.0.11", "two": "10.77.0.12"}
TRACKING = "http://10.77.0.10:5000"
TRIALS = 3
TOKEN = "bbh0" * 16
TOKEN_MODE = {"RAY_AUTH_MODE": "token"}
STATES = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id]):
        print(run.info.run_name, run.info.status, run.data.tags)
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(tmp_path, HOSTS)
    try:
        yield made
    finally:
        made.close()


def cluster_file(network: Network) -> str:
    """The project's file for one's own machines with these hosts, one CPU each, so that two workers take two hosts."""
    text = (ROOT / "jobs" / "cluster_local.yaml").read_text(encoding="utf-8")
    for old, new in {
        "192.168.1.10": HOSTS["head"],
        "[192.168.1.11, 192.168.1.12]": f"[{HOSTS['one']}, {HOSTS['two']}]",
        "ssh_user: ubuntu": "ssh_user: root",
        "~/.ssh/id_ed25519": "/root/.ssh/key",
        "ray start": "ray start --num-cpus=1 --object-store-memory=100000000",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (network.folder / "shared" / "cluster.yaml").write_text(text, encoding="utf-8")
    return "/mnt/cluster.yaml"


def prepare_launcher(network: Network) -> None:
    """Key and token, as a user has them."""
    shared = network.folder / "shared"
    (shared / "key").write_bytes((network.folder / "key").read_bytes())
    network.run("launcher", "install", "-D", "-m", "0600", "/mnt/key", "/root/.ssh/key")
    (shared / "key").unlink()
    token = f"umask 077; mkdir -p /root/.ray; printf %s {TOKEN} > /root/.ray/auth_token"
    network.run("launcher", "sh", "-c", token)


def start_tracking(network: Network) -> None:
    server = ["jobs/cluster_mlflow.sh", "/tmp/tracking", HOSTS["head"]]
    as_postgres = ["unshare", "--user", "--map-user=postgres", "--map-group=postgres"]
    network.start("head", *as_postgres, *server, log="tracking.log")


def succeeds(network: Network, *command: str) -> bool:
    return subprocess.run(network.command("launcher", *command), capture_output=True).returncode == 0


def study_result(network: Network) -> dict[str, Any]:
    record = network.folder / "shared" / "runs" / "bbh" / "run.json"
    result: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")).get("result", {}) if record.exists() else {}
    return result


def epochs_reported(network: Network) -> int:
    """Epochs that two-worker trials have reported, so far."""
    reports = (network.folder / "shared" / "runs").glob("bbh/workers/trial-*/reports.jsonl")
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in reports)


def runs_ray(network: Network, name: str) -> bool:
    return any("/raylet/" in line or "ray::" in line or "/ray/_private/" in line for line in network.processes_of(name))


def trains(network: Network, name: str) -> bool:
    return any("RayTrainWorker" in line for line in network.processes_of(name))


def bring_up(network: Network, file: str) -> None:
    """`ray up` between the two checks, with the tracking server on the head."""
    prepare_launcher(network)
    start_tracking(network)
    found = network.run("launcher", "python", "-m", "bbh_dist.cluster", "check", file)
    assert "3 hosts answer over ssh" in found
    assert "before ray up" not in found
    network.run("launcher", "ray", "up", "-y", file)
    until(lambda: succeeds(network, "curl", "-sf", f"{TRACKING}/health"), "the tracking server")
    place = f"--storage /mnt/runs --tracking-uri {TRACKING}"
    check = f"cd ~/bbh_dist && python -m bbh_dist.cluster check --address auto {place}"
    found = network.run("launcher", "ray", "exec", file, check, **TOKEN_MODE)
    assert "3 nodes: " in found
    assert "/mnt/runs is one folder on all nodes, and writable" in found
    assert f"{TRACKING} answers from all nodes" in found


def search_and_lose_a_host(network: Network, file: str) -> str:
    """Submit a search of two-worker trials and cut off a host that trains; its name, once the search has ended."""
    network.start("launcher", "ray", "dashboard", file, log="dashboard.log")
    answers = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8265"]
    until(lambda: succeeds(network, *answers), "the dashboard's port")
    options = ["--workers", "2", "--trials", str(TRIALS), "--seeds", "1", "--set", "scheduler.name=none"]
    options += ["--set", "base.epochs=12", "--set", "base.evaluation.samples=5"]
    search = ["jobs/cluster_search.sh", "--space", "tune_spaces/bbh.yaml", *options]
    job = network.start("launcher", *search, log="job.log", STORAGE="/mnt/runs", TRACKING=TRACKING)
    until(lambda: epochs_reported(network) >= 4 or job.poll() is not None, "epochs of two workers")
    assert job.poll() is None, (network.folder / "job.log").read_text()
    lost = next(name for name in ("one", "two") if trains(network, name))
    network.kill(lost)
    assert job.wait(timeout=1800) == 0, (network.folder / "job.log").read_text()
    return lost


def check_names_the_lost_host(network: Network, lost: str) -> None:
    check = ["python", "-m", "bbh_dist.cluster", "check", "--address", "auto", "--timeout", "1"]
    fewer = subprocess.run(network.command("head", *check, **TOKEN_MODE), capture_output=True, text=True)
    assert fewer.returncode == 1
    assert f"2 of 3 nodes are there after 1 s\n{HOSTS[lost]} is missing: \n  its log cannot" in fewer.stderr


def tracked_runs(network: Network) -> list[str]:
    """What the tracking server has: the study's run, those of its trials and the final one."""
    runs = network.run("launcher", "python", "-c", STATES, TRACKING).splitlines()
    assert len(runs) == TRIALS + 2
    assert all(" FINISHED " in run for run in runs)
    return runs


def check_the_token_is_secret(network: Network, names: tuple[str, str], runs: list[str]) -> None:
    """Not in MLflow, in `ps`, in logs or what runs and tracking server have left, and its file its owner's alone."""
    assert not any(TOKEN in line for line in [*network.processes_of("head"), *network.processes_of(names[1]), *runs])
    for log in ("job.log", "dashboard.log", "tracking.log"):
        assert TOKEN not in (network.folder / log).read_text()
    for name in names:
        network.run(name, "ls", "-d", "/tmp/ray", "/mnt/runs")
        logs = network.command(name, "grep", "-rlF", TOKEN, "/tmp", "/mnt")
        assert subprocess.run(logs, capture_output=True, text=True).stdout == ""
        assert network.run(name, "stat", "-c", "%a", "/root/.ray/auth_token") == "600\n"


def bring_down(network: Network, file: str, lost: str) -> None:
    """`ray down`, and stop what it leaves on the workers, the lost one being taken out of the file."""
    network.run("launcher", "ray", "down", "-y", file)
    path = network.folder / "shared" / "cluster.yaml"
    text, entry = path.read_text(encoding="utf-8"), {"one": f"{HOSTS['one']}, ", "two": f", {HOSTS['two']}"}[lost]
    path.write_text(text.replace(entry, ""), encoding="utf-8")
    network.run("launcher", "python", "-m", "bbh_dist.cluster", "stop", file)


def test_a_lost_node_is_survived_from_ray_up_to_ray_down(network: Network) -> None:
    file = cluster_file(network)
    bring_up(network, file)
    lost = search_and_lose_a_host(network, file)
    left = next(name for name in ("one", "two") if name != lost)
    result = study_result(network)
    assert [trial["state"] for trial in result["trials"]] == ["COMPLETE"] * TRIALS
    assert result["final"]["seeds"] == [0]
    check_names_the_lost_host(network, lost)
    check_the_token_is_secret(network, ("head", left), tracked_runs(network))
    bring_down(network, file, lost)
    for name in ("head", left):
        until(lambda name=name: not runs_ray(network, name), f"{name} to be left alone")
