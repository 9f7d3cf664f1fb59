"""Files that a command writes for its user: nothing that is not ours is replaced."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from bbh_dist.command_line import RunFailed
from bbh_dist.config import ConfigError, Mistake

_RESULTS = (
    {"study", "trials"},
    {"run_id", "metrics"},
    {"suite", "rows"},
    {"command", "machine", "rows"},
    {"parameters", "per_worker"},
)
"""Keys that only results have: of tune, train, benchmark, speed and plan."""


def check_writable(path: str | None, flag: str) -> None:
    """See that a file, or a pipe or terminal that stands, can be written, without making or changing it.

    Raises:
        ConfigError: its folder does not exist or may not be written, or it is a folder or a pipe that may not.
    """
    if path is None:
        return
    if _is_stream(path):
        writable = os.access(path, os.W_OK)
    else:
        folder = Path(path).resolve().parent
        writable = os.path.isdir(folder) and os.access(folder, os.W_OK) and not os.path.isdir(path)
    if not writable:
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
        ConfigError: it cannot, or holds something else than results.
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
    try:
        if _is_stream(path):
            Path(path).write_text(json.dumps(result, indent=2), encoding="utf-8")
            return
        target = Path(path).resolve()
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


def _is_stream(path: str) -> bool:
    """Whether a pipe or the terminal stands there, of which a link such as /dev/stdout cannot be resolved."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def _holds_results(path: Path) -> bool:
    """Whether a file is empty or holds what a command has written by `--json`."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text:
            return True
        found = json.loads(text)
        return isinstance(found, dict) and any(keys <= found.keys() for keys in _RESULTS)
    except (OSError, ValueError, RecursionError):
        return False
