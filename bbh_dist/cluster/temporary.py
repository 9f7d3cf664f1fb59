"""Folders for Ray's sockets and logs that go with the process that made them, also with one that was killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bbh_dist.ownership import check_own

_PREFIX = "bbh-"
_LOCK = "driver"
_MADE_AGAIN = {"session_latest", "logs", "sockets", "runtime_resources", "old"}
"""What a process that outlives a killed driver makes once more, beside the session's folder itself."""
_SECONDS_TO_TAKE_AWAY = 5.0
"""Ray's processes end a moment after their driver, and write logs meanwhile."""


def check_temporary() -> None:
    """See that no one else can write where Ray keeps its files: it pickles there.

    Raises:
        ConfigError: as `check_own`.
    """
    check_own(Path(tempfile.gettempdir()) / _PREFIX, "TMPDIR")


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of this process's own; those that killed processes of this user left are taken away before and after.

    Its path is short: Ray puts Unix sockets in it, whose paths may have 107 characters.
    """
    _take_away_what_is_left()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        with open(folder / f"{_LOCK}.new", "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # held as long as the process lives
            (folder / f"{_LOCK}.new").rename(folder / _LOCK)
            yield folder
    finally:
        with contextlib.suppress(FileNotFoundError):  # whoever clears temporary folders was faster
            _take_away(folder)
        _take_away_what_is_left()


def _take_away_what_is_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # it is another's, or has gone meanwhile
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                _take_away_if_left(folder)


def _take_away_if_left(folder: Path) -> None:
    if not (folder / _LOCK).exists():
        sessions = list(folder.glob("session_2*"))
        inside = {path.name for path in folder.rglob("*")} - {session.name for session in sessions}
        if sessions and inside <= _MADE_AGAIN:
            _take_away(folder)
        return
    with open(folder / _LOCK, encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _take_away(folder)


def _take_away(folder: Path) -> None:
    """Delete a folder, its lock last, so that whatever stays is taken away by the next process."""
    deadline = time.monotonic() + _SECONDS_TO_TAKE_AWAY
    while True:
        for path in folder.iterdir():
            if path.name == _LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        left = [path for path in folder.iterdir() if path.name != _LOCK]
        if not left:
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists() or time.monotonic() > deadline:
            return
        time.sleep(0.1)
