"""Worker processes that take steps when they are told to, and end with this one whatever happens.

Each is `python -m bbh_dist.speed.worker`; a line of JSON is a question, a line of JSON the answer.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from bbh_dist.command_line import RunFailed
from bbh_dist.config import Experiment
from bbh_dist.provenance import loopback
from bbh_dist.speed.machine import loopback_bytes

_SECONDS_TO_END = 5


class Processes(AbstractContextManager["Processes"]):
    """`size` processes that train together over gloo, on loopback; `kind` is `sharded`, `ddp` or `loop`."""

    def __init__(self, kind: str, experiment: Experiment, size: int = 1, threads: int = 1) -> None:
        self.size = size
        self.traffic: dict[str, int] = {}
        """Bytes that the first worker sent in its last step, by kind."""
        self.loopback: list[float] = []
        """Bytes that the interface carried in every step, per worker; with those of whoever else used it."""
        self._folder = tempfile.TemporaryDirectory(prefix="bbh-")
        meet = (Path(self._folder.name) / "meet").as_uri()
        question = {"kind": kind, "experiment": experiment.model_dump_json(), "size": size, "threads": threads}
        self._processes = [_started(threads) for _ in range(size)]
        for rank, process in enumerate(self._processes):
            _ask(process, question | {"rank": rank, "meet": meet})

    def ready(self) -> int:
        """Bytes that the largest process held before it built its model; returns when all are built."""
        return max(answer["before"] for answer in self._answers())

    def step(self) -> float:
        """Milliseconds of one step, those of the slowest worker."""
        carried = loopback_bytes()
        answers = self._all({"do": "step"})
        if carried is not None:
            self.loopback.append(((loopback_bytes() or 0) - carried) / self.size)
        self.traffic = answers[0]["traffic"]
        return max(answer["ms"] for answer in answers)

    def train(self, experiment: Experiment) -> None:
        """Train an experiment from its start to its end, where `kind` is `loop`."""
        self._all({"experiment": experiment.model_dump_json()})

    @property
    def pids(self) -> list[int]:
        """Their ids."""
        return [process.pid for process in self._processes]

    def peak_memory(self) -> int:
        """Most bytes that the largest process has held."""
        return max(answer["peak"] for answer in self._all({"do": "peak"}))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            _close(process)
        for process in self._processes:
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()

    def _all(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        for process in self._processes:
            _ask(process, question)
        return self._answers()

    def _answers(self) -> list[dict[str, Any]]:
        answers = []
        for rank, process in enumerate(self._processes):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RunFailed(f"worker {rank} of {self.size} ended with exit code {process.wait()}")
            answers.append(json.loads(line))
        return answers


def _started(threads: int) -> "subprocess.Popen[str]":
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": loopback(), "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [sys.executable, "-m", "bbh_dist.speed.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C is for this process, which then ends them
    )


def _ask(process: "subprocess.Popen[str]", question: dict[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
    except BrokenPipeError as error:
        raise RunFailed(f"a worker ended with exit code {process.wait()}") from error


def _close(process: "subprocess.Popen[str]") -> None:
    """Close the pipes; at the end of its questions a worker leaves."""
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()
