"""Turns: one side runs at a time, children too, and none is left stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bbh_dist.command_line import RunFailed
from bbh_dist.speed import alternation
from bbh_dist.speed.alternation import Alternation

_PARENT = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
_ALTERNATION = """
import json, sys, time
from bbh_dist.speed.alternation import Alternation
with Alternation(json.loads(sys.argv[1])):
    time.sleep(60)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture
def sides() -> Iterator[list[list[int]]]:
    """Two processes with a child each."""
    parents = [subprocess.Popen([sys.executable, "-c", _PARENT]) for _ in range(2)]
    until(lambda: all(len(alternation._descendants([each.pid])) == 2 for each in parents))
    everyone = alternation._descendants([each.pid for each in parents])
    yield [[each.pid] for each in parents]
    for pid in everyone:
        os.kill(pid, signal.SIGKILL)
    for each in parents:
        each.wait()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stopped(side: list[int]) -> list[bool]:
    states = [
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in alternation._descendants(side)
    ]
    return [state == "T" for state in states]


def test_sides_run_in_turns_and_both_go_on_at_the_end(sides: list[list[int]]) -> None:
    began = time.time()
    with Alternation(sides) as taken:
        for side in (1, 0, 1):
            until(lambda side=side: all(stopped(sides[side])) and not any(stopped(sides[1 - side])))
    ended = time.time()
    until(lambda: not any(stopped(sides[0]) + stopped(sides[1])))
    seconds = [taken.seconds(side, began, ended) for side in (0, 1)]
    assert min(seconds) > 0.5
    # The rest of the time was taken by stopping them, in which neither counts as running.
    assert sum(seconds) < ended - began
    before, after = 100.0, 1000.0
    assert taken.seconds(0, began - before, ended) == pytest.approx(seconds[0] + before)
    assert [taken.seconds(side, began, ended + after) - seconds[side] for side in (0, 1)] == pytest.approx([after] * 2)


def test_without_ps_there_are_no_turns(sides: list[list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunFailed, match="no turns could be taken"), Alternation(sides):
        pass
    monkeypatch.undo()
    assert not any(stopped(sides[0]) + stopped(sides[1]))


def test_whoever_is_stopped_goes_on_when_the_one_who_takes_turns_is_killed(sides: list[list[int]]) -> None:
    taking = subprocess.Popen([sys.executable, "-c", _ALTERNATION, str(sides)])
    until(lambda: all(stopped(sides[1])))
    taking.kill()
    taking.wait()
    until(lambda: not any(stopped(sides[0]) + stopped(sides[1])))
    time.sleep(1.5 * alternation._SECONDS)
    assert not any(stopped(sides[0]) + stopped(sides[1]))
