"""Folders that nobody else can write to: what Ray pickles there is code for whoever reads it again."""

import os
import stat
from pathlib import Path

from bbh_dist.config import ConfigError, Mistake


def check_own(folder: Path, flag: str) -> None:
    """See that nobody but this user and root can change a folder, or put another in its place.

    What stands of it must belong to this user or root and not be writable by all, and so must the folder that it is
    in; no folder above may be writable by all unless only owners can remove from it, as in /tmp.

    Raises:
        ConfigError: one is not so.
    """
    for path in dict.fromkeys((folder, folder.resolve(), folder.resolve().parent)):
        _check_owner(path, flag)
    for path in dict.fromkeys((folder, folder.resolve())):
        _check_mode(path, flag, sticky=0)
    for path in folder.resolve().parents:
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
