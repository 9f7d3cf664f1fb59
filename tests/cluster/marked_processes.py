"""Processes that a command has started, orphans as well: they have a folder for temporary files in common."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Ray's own, without a part in the work: that their cluster was killed they tell it, in vain, for up to a minute."""
_SECONDS_TO_END, _SECONDS_OF_AGENTS = 20.0, 100.0


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder to be the TMPDIR of one command alone; Ray's sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="k-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def processes_of(temporary: Path, but: tuple[str, ...] = ()) -> list[int]:
    """Ids of all processes whose TMPDIR is a folder, except those whose titles begin with `but`."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_marked(pid, temporary, but)]


def have_ended(temporary: Path) -> bool:
    """Whether none is left in 20 seconds, raylet and actors included; Ray's agents have a minute and more."""
    return _end_within(_SECONDS_TO_END, temporary, AGENTS) and _end_within(_SECONDS_OF_AGENTS, temporary, ())


def _end_within(seconds: float, temporary: Path, but: tuple[str, ...]) -> bool:
    deadline = time.monotonic() + seconds
    while processes_of(temporary, but):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _is_marked(pid: int, temporary: Path, but: tuple[str, ...]) -> bool:
    try:  # of those that only wait to be asked how they ended it is empty
        environment, title = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))
    except OSError:
        return False
    return f"TMPDIR={temporary}\0".encode() in environment and not title.decode().startswith(but)
