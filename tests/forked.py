"""Groups of gloo workers, forked so that torch is imported once, and the scripts that fork them, for all tests.

A script is a process of its own, as pytest's has threads, which a fork would lose.
"""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def run_script(script: Path, *arguments: object, flags: tuple[str, ...] = (), seconds: float = 400.0) -> None:
    """Run a script beside a test to its end; after `seconds`, or an interrupt, it and all that it forked are killed."""
    here = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(here),
    }
    command = [sys.executable, *flags, str(script), *map(str, arguments)]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            errors = process.communicate(timeout=seconds)[1]
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, errors


def fork_workers(size: int, work: Callable[[int], None]) -> int:
    """Fork workers that do `work(rank)`; 0, or 1 where one raised, which ends the others."""
    workers: set[int] = set()
    for rank in range(size):
        worker = os.fork()
        if worker == 0:
            try:
                work(rank)
            except BaseException:
                print(f"worker {rank}: {traceback.format_exc()}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        workers.add(worker)
    while workers:
        ended, status = os.wait()
        workers.discard(ended)
        if status:
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            return 1
    return 0
