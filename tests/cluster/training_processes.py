"""Commands that train over a cluster, and the processes that do it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

JOB = str(Path(__file__).resolve().parents[2] / "jobs" / "digits5_bbh.yaml")


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
