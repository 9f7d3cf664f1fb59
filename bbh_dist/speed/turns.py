"""Two sides, each of processes and all that these start, run in turns: what else the machine does falls on both alike.

Usage: python -m bbh_dist.speed.turns, on standard input a line of JSON with the process ids of each side. A process of
its own stops and continues the others, so that none is left stopped whatever happens to this one: when its input ends,
it lets all of them go on and leaves.
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

_SECONDS = 1.0


class Turns(AbstractContextManager["Turns"]):
    """The first side begins; both go on without turns when this ends."""

    def __init__(self, sides: Sequence[Sequence[int]]) -> None:
        self._ran: list[list[tuple[float, float]]] = [[] for _ in sides]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bbh_dist.speed.turns"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(sides) + "\n")
        self._process.stdin.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told, _ = self._process.communicate()
        for line in told.splitlines():
            turn, start, end = json.loads(line)
            self._ran[turn].append((start, end))
        for ran in self._ran:
            ran.append((time.time(), float("inf")))

    def seconds(self, side: int, start: float, end: float) -> float:
        """How long a side ran from one time to another, both as `time.time` has them; known when the turns are over."""
        return sum(max(0.0, min(end, until) - max(start, since)) for since, until in self._ran[side])


def main() -> None:
    """Take turns until the input ends, and say when each was, for standard output to be read at the end."""
    sides = json.loads(sys.stdin.readline())
    turn, told = 0, []
    known: list[set[int]] = [set() for _ in sides]
    _send(sides[1], signal.SIGSTOP, set())
    started = 0.0  # nobody has stopped the first side before
    try:
        while True:
            over = select.select([sys.stdin], [], [], _SECONDS)[0]
            told.append(json.dumps([turn, started, time.time()]))
            if over:
                break
            known[turn] = _send(sides[turn], signal.SIGSTOP, known[turn])
            turn = 1 - turn
            _send(sides[turn], signal.SIGCONT, known[turn])
            started = time.time()
    finally:
        for side in sides:
            _send(side, signal.SIGCONT, set())
    with suppress(BrokenPipeError):
        print("\n".join(told), flush=True)


def _send(pids: Iterable[int], number: signal.Signals, known: set[int]) -> set[int]:
    """Send a signal to processes and their descendants, to those that are known first; returns all that had it."""
    sent: set[int] = set()
    new = known
    while new or not sent:
        for pid in new:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        sent |= new
        new = _descendants(pids) - sent
    return sent


def _descendants(pids: Iterable[int]) -> set[int]:
    """Processes and all that descend from them."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for pid, parent in (map(int, line.split()) for line in listed.splitlines()):
        children.setdefault(parent, []).append(pid)
    found, waiting = set(), list(pids)
    while waiting:
        found.add(pid := waiting.pop())
        waiting += children.get(pid, [])
    return found


if __name__ == "__main__":
    main()
