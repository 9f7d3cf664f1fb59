"""Folders that nobody else can write to: what Ray pickles there is code for whoever reads it again."""

import os
import stat
from pathlib import Path

from bbh_dist.config import ConfigError, Mistake


def check_own(folder: Path, flag: str) -> None:
    """See that a folder, where it stands, belongs to this user or root and that not all can write to it.

    Nor may all write to a folder above, unless only owners can remove from it, as in /tmp.

    Raises:
        ConfigError: it is not so.
    """
    real = folder.resolve()
    for path in dict.fromkeys((folder, real)):
        _check_owner(path, flag)
        _check_mode(path, flag, sticky=0)
    for path in real.parents:
        _check_mode(path, flag, sticky=stat.S_ISVTX)


def _check_owner(path: Path, flag: str) -> None:
    found = _status(path)
    if found is not None and found.st_uid not in (0, os.getuid()):
        rule = f"must belong to you (user {os.getuid()}), not to user {found.st_uid}"
        raise ConfigError(Mistake(flag, rule, got=str(path)))


def _check_mode(path: Path, flag: str, sticky: int) -> None:
    found = _status(path)
    if found is None or stat.S_ISLNK(found.st_mode):  # a link has no mode of its own
        return
    if found.st_mode & stat.S_IWOTH and not found.st_mode & sticky:
        raise ConfigError(Mistake(flag, f"must not be writable by all: chmod o-w {path}", got=str(path)))


def _status(path: Path) -> os.stat_result | None:
    """Of the path itself, not of what a link leads to; none where nothing stands, or nothing may be seen."""
    try:
        return path.lstat()
    except OSError:
        return None
