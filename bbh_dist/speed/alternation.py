"""Two sides, each of processes and all that these start, run in turns: what else the machine does falls on both alike.

Usage: python -m bbh_dist.speed.alternation, on standard input a line of JSON with the process ids of each side.
A process of its own stops and continues the others, so that none is left stopped when this one is killed: when its
input ends, it lets all of them go on and leaves.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import NoReturn

from bbh_dist.command_line import RunFailed

_SECONDS = 1.0


class Alternation(AbstractContextManager["Alternation"]):
    """The first side begins; both go on without turns when this ends. Timers run on while a side is stopped.

    Raises:
        RunFailed: they could not be stopped, for want of `ps`, or of the right to do so.
    """

    def __init__(self, sides: Sequence[Sequence[int]]) -> None:
        self._sides = sides
        self._ran: list[list[tuple[float, float]]] = [[] for _ in sides]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bbh_dist.speed.alternation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(sides) + "\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            self._fail()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told, _ = self._process.communicate()
        if self._process.returncode:
            for side in self._sides:  # as far as they can be found: it may have been killed while they were stopped
                _send(signal.SIGCONT, _descendants(side))
            if kind is None:
                self._fail()
        for line in told.splitlines():
            turn, start, end = json.loads(line)
            self._ran[turn].append((start, end))
        self.end = time.time()
        """When both were let go, as `time.time` has it."""
        for ran in self._ran:
            ran.append((self.end, float("inf")))

    def _fail(self) -> NoReturn:
        raise RunFailed(f"no turns could be taken: what stops processes ended with exit code {self._process.wait()}")

    def seconds(self, side: int, start: float, end: float) -> float:
        """How long a side ran from one time to another, both as `time.time` has them; known when the turns are over."""
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in self._ran[side])


def main() -> None:
    """Take turns until the input ends; say when the second side is stopped, and in the end when each turn was."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sides = json.loads(sys.stdin.readline())
    stopped: list[set[int]] = [set() for _ in sides]
    turn, told = 0, []
    with suppress(BrokenPipeError):  # whoever asked for turns is gone
        try:
            _stop(sides[1], stopped[1])
            print("begun", flush=True)
            started = 0.0  # nobody has stopped the first side before
            while True:
                over = select.select([sys.stdin], [], [], _SECONDS)[0]
                told.append([turn, started, time.time() if over else _stop(sides[turn], stopped[turn])])
                if over:
                    break
                turn = 1 - turn
                started = time.time()
                _continue(stopped[turn])
        finally:
            for side in stopped:
                _continue(side)
        print("\n".join(map(json.dumps, told)), flush=True)


def _stop(pids: Iterable[int], stopped: set[int]) -> float:
    """Stop processes and their descendants, and add them to those that are stopped; when that was.

    Some may have been started meanwhile, so it looks again until there are no more.
    """
    when = None
    while new := _descendants(pids) - stopped:
        stopped |= new
        _send(signal.SIGSTOP, new)
        when = when or time.time()
    return when or time.time()


def _continue(stopped: set[int]) -> None:
    """Continue processes, also those whose parent has been killed meanwhile."""
    _send(signal.SIGCONT, stopped)
    stopped.clear()


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):  # it is no more, or another has its id
            os.kill(pid, number)


def _descendants(pids: Iterable[int]) -> set[int]:
    """Of processes and all that descend from them, those that are alive."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict((int(pid), int(parent)) for pid, parent in map(str.split, listed.splitlines()))
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in pids if pid in parents]
    while waiting:
        found.add(pid := waiting.pop())
        waiting += children.get(pid, [])
    return found


if __name__ == "__main__":
    main()
