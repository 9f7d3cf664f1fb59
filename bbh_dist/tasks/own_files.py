"""Whether data that somebody brought along are still those with which work began: `npz:` files, by their SHA-256."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from bbh_dist.config import DataError
from bbh_dist.tasks.known import file_sha256, reading

OWN_FILES = "own_files"
"""Where the record of a run's folder has the hashes."""
_PREFIX = "npz:"


def own_hashes(tasks: Iterable[str]) -> dict[str, str]:
    """SHA-256 of the file of every task that has one of its own, by the task's name.

    Raises:
        DataError: a file cannot be read.
    """
    names = [task for task in dict.fromkeys(tasks) if task.startswith(_PREFIX)]
    return {name: _hash(Path(name.removeprefix(_PREFIX))) for name in names}


def check_own_files(tasks: Iterable[str], stored: Mapping[str, str]) -> None:
    """See that no file was replaced since its hash was stored; one of which none is stored is not looked at.

    Raises:
        DataError: one was, or cannot be read.
    """
    for name, found in own_hashes(task for task in tasks if task in stored).items():
        if found != stored[name]:
            rule = "was changed since the run began; put the old file back, or begin a new run"
            raise DataError(f"{name.removeprefix(_PREFIX)}: {rule} (sha256 {found}, then {stored[name]})")


def _hash(path: Path) -> str:
    with reading(path):
        return file_sha256(path)
