"""Commands that train over a cluster, the processes that do it, and their deaths."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

JOB = str(Path(__file__).resolve().parents[2] / "jobs" / "digits5_bbh.yaml")
EPOCHS = 4
TWO_WORKERS = ("parallel.workers=2", f"epochs={EPOCHS}", "batch_size=3", "evaluation.epoch_samples=3")
OWN_NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
OWN_NAMESPACES += [] if os.geteuid() == 0 else ["--user", "--map-root-user"]


def lose_node_command(folder: Path, workers: str, *options: str) -> list[str]:
    """`lose_node.py` in namespaces of its own."""
    return in_namespaces("lose_node.py", str(folder), workers, *options)


def in_namespaces(script: str, *arguments: str) -> list[str]:
    """A script of this folder in namespaces of its own, with which all that it starts ends."""
    shell = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    return [*OWN_NAMESPACES, *shell, sys.executable, str(Path(__file__).with_name(script)), *arguments]


def skip_without_namespaces() -> None:
    """Skip a test whose cluster must not meet another one of this machine, where it cannot be kept apart."""
    tried = subprocess.run([*OWN_NAMESPACES, "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("its cluster has a network of its own: needs unshare (1), ip (8) and leave to make namespaces")


def train(
    folder: Path,
    name: str,
    *settings: str,
    address: str | None = None,
    store: str | None = None,
    options: Sequence[str] = (),
) -> "subprocess.Popen[str]":
    """`python -m bbh_dist.train` of a run NAME in a folder, tracked there unless a store is given; writes NAME.out."""
    line = [sys.executable, "-m", "bbh_dist.train", "--job", JOB, "--name", name, "--storage", str(folder)]
    line += ["--tracking-uri", store or f"sqlite:///{folder}/mlflow.db", *(["--address", address] if address else [])]
    line += options
    for setting in settings:
        line += ["--set", setting]
    with open(folder / f"{name}.out", "a") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder)}
        return subprocess.Popen(line, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]", output: Path, seconds: float) -> None:
    """Until a condition holds, while a process runs."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < until, output.read_text()
        time.sleep(0.02)


def workers_of(raylet: int) -> list[int]:
    """The training workers of a node."""
    return [pid for pid, arguments in children(raylet) if "RayTrainWorker" in arguments]


def children(parent: int) -> list[tuple[int, str]]:
    """Process ids and arguments."""
    listed = subprocess.run(["ps", "-ww", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    fields = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return sorted((int(pid), arguments) for pid, ppid, arguments in fields if int(ppid) == parent)


def lose_worker(folder: Path, name: str, chance: random.Random) -> None:
    """A run of two workers, one of which is killed within its third epoch."""
    process = in_third_epoch(folder, name)
    time.sleep(chance.uniform(0, 1))  # an epoch takes longer
    raylets = [pid for pid, arguments in children(process.pid) if "raylet" in arguments]
    workers = [pid for raylet in raylets for pid in workers_of(raylet)]
    assert len(workers) == 2
    os.kill(chance.choice(workers), signal.SIGKILL)
    wait_for_end(process, folder, name)


def lose_driver(folder: Path, name: str) -> None:
    """A run of two workers whose driver is killed within its third epoch, and which is resumed at once."""
    process = in_third_epoch(folder, name)
    process.kill()
    process.wait()
    lose_nothing(folder, name, "--resume")


def lose_nothing(folder: Path, name: str, *options: str) -> None:
    """A run of two workers."""
    wait_for_end(train(folder, name, *TWO_WORKERS, options=options), folder, name)


def in_third_epoch(folder: Path, name: str) -> "subprocess.Popen[str]":
    """A run of two workers that has stored its second epoch's checkpoint."""
    process = train(folder, name, *TWO_WORKERS)
    wait_for((folder / name / "checkpoints" / "epoch-000002").exists, process, folder / f"{name}.out", 400)
    return process


def wait_for_end(process: "subprocess.Popen[str]", folder: Path, name: str) -> None:
    """Until a run has ended, well."""
    assert process.wait(400) == 0, (folder / f"{name}.out").read_text()
