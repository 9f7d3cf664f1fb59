"""Files that a command writes for its user: nothing that is not ours is replaced."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from bbh_dist.command_line import RunFailed
from bbh_dist.config import ConfigError, Mistake


def check_writable(path: str | None, flag: str) -> None:
    """See that a file can be written, without making or changing it.

    Raises:
        ConfigError: its folder does not exist or may not be written.
    """
    if path is None:
        return
    folder = Path(path).resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK) or Path(path).is_dir():
        raise ConfigError(Mistake(flag, "cannot be written", got=path))


def check_new(path: str, flag: str) -> None:
    """See that nothing stands where a file will be written.

    Raises:
        ConfigError: something does, or the file cannot be written.
    """
    if os.path.lexists(path):
        raise ConfigError(Mistake(flag, "stands already", got=path))
    if not Path(path).parent.is_dir():
        raise ConfigError(Mistake(flag, "its folder does not exist", got=path))
    check_writable(path, flag)


def check_json(path: str | None) -> None:
    """See that the file of `--json` can be written, and that what stands there is earlier results.

    Raises:
        ConfigError: it cannot, or holds something that is no JSON object.
    """
    check_writable(path, "--json")
    if path is not None and Path(path).is_file() and not _holds_results(Path(path)):
        raise ConfigError(Mistake("--json", "stands already and holds no results, it is not replaced", got=path))


def write_json(path: str | None, result: dict[str, Any]) -> None:
    """Write results, atomically, and say where earlier ones are replaced; nothing without a path.

    Raises:
        RunFailed: the file cannot be written.
    """
    if path is None:
        return
    target = Path(path).resolve()
    try:
        if target.exists() and not target.is_file():  # a pipe, or the terminal
            target.write_text(json.dumps(result, indent=2), encoding="utf-8")
            return
        replaces = target.exists() and target.stat().st_size > 0
        temporary = target.with_name(f".{os.getpid()}.json")
        try:
            temporary.write_text(json.dumps(result, indent=2), encoding="utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise RunFailed(f"{path} cannot be written: {error.strerror}") from error
    if replaces:
        print(f"{path}: the results that stood there are replaced", file=sys.stderr)


def _holds_results(path: Path) -> bool:
    """Whether a file is empty or holds a JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
        return not text or isinstance(json.loads(text), dict)
    except (OSError, ValueError, RecursionError):
        return False
