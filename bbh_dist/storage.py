"""Folders in which runs and studies keep what they need to go on: nothing there is ever replaced in silence."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bbh_dist.config import ConfigError, Mistake, read_source
from bbh_dist.lease import held
from bbh_dist.ownership import check_own

CHECKPOINTS = "checkpoints"
"""Where a run's folder has them."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RECORD = "run.json"
_FIRST = ("config.yaml", ".config.yaml.", ".run.json.", "lock", "lease.json", ".lease.json.")
"""What stands in a folder before its record does."""


class RunFolder:
    """One run's or study's folder: `config.yaml` as resolved, `run.json` with what has to be known to go on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """Name of the run or study."""
        return self.path.name

    def create(self, config: str, record: dict[str, Any]) -> None:
        """Make the folder with its configuration and record.

        Raises:
            ConfigError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write("config.yaml", config)
            self.write_record(record)
        except OSError as error:
            raise self._unwritable(error) from error

    @contextlib.contextmanager
    def making(self) -> Iterator[None]:
        """Make the folder, and take it away again if what is done meanwhile raises.

        Raises:
            ConfigError: the folder cannot be made.
        """
        missing = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            for parent in missing[1:]:
                with contextlib.suppress(OSError):  # others may have put theirs there meanwhile
                    parent.rmdir()
            raise

    def has_record(self) -> bool:
        """Whether there is something to go on with; not where a process was killed while it made the folder.

        Raises:
            ConfigError: there is no record, but other things than such a process leaves.
        """
        if (self.path / _RECORD).exists():
            return True
        others = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(_FIRST)]
        if others:
            rule = f"is missing, beside {min(others)}: put it back, or choose another --name"
            raise ConfigError(Mistake(str(self.path / _RECORD), rule))
        return False

    def update(self, config: str, record: dict[str, Any]) -> None:
        """Store a configuration that asks for more of the same, and what has to be known to go on."""
        # In this order: what is cut off between the two is asked for again, not taken for done.
        self.write_record(record)
        self.write("config.yaml", config)

    def config(self) -> str:
        """The resolved configuration that was stored.

        Raises:
            ConfigError: it is missing or not readable.
        """
        path = self.path / "config.yaml"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(Mistake(str(path), f"cannot be read: {error}")) from error

    def config_data(self) -> dict[str, Any]:
        """The same as plain data.

        Raises:
            ConfigError: as `config`, or it has been damaged and is no mapping any more.
        """
        return read_source(self.path / "config.yaml").data

    def record(self) -> dict[str, Any]:
        """What was stored to go on.

        Raises:
            ConfigError: the record is missing or not readable.
        """
        try:
            record = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(Mistake(str(self.path / _RECORD), f"cannot be read: {error}")) from error
        if not isinstance(record, dict):
            raise ConfigError(Mistake(str(self.path / _RECORD), "must hold a JSON object"))
        return record

    @contextlib.contextmanager
    def lock(self, what: str = "--resume") -> Iterator[None]:
        """Hold the folder against other drivers, of this machine and of others.

        `what` wants it, and stands before the mistake.

        Raises:
            ConfigError: another process holds it.
        """
        with held(self.path, what):
            yield

    def write_record(self, record: dict[str, Any]) -> None:
        """Store what has to be known to go on, atomically."""
        self.write(_RECORD, json.dumps(record, indent=2))

    def write(self, name: str, text: str) -> None:
        """Write a text file of the folder, atomically."""
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.touch(mode=0o600)  # a tracking URI may hold a password
        temporary.write_text(text, encoding="utf-8")
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # else a machine that loses power may leave it empty
        temporary.replace(self.path / name)

    def _unwritable(self, error: OSError) -> ConfigError:
        return ConfigError(Mistake("--storage", f"cannot be written: {error.strerror}", got=str(self.path)))


def open_folder(storage: str | None, name: str | None, stem: str, resume: bool) -> tuple[RunFolder, bool]:
    """The folder of a run, and whether it stands already and goes on.

    A given name is taken as it is; otherwise the stem of the configuration's file with a number where it is taken
    (`bbh`, `bbh-2`), one above the highest that stands, and to resume, that one.

    Raises:
        ConfigError: others may write there; or a name that is no plain name, that stands without `--resume`, or that
            does not stand with it.
    """
    root = Path(storage or "runs").resolve()
    check_own(root, "--storage")
    if name is None:
        name = _numbered(root, plain_name(stem), resume)
    elif not is_plain_name(name):
        rule = "must be letters, digits, '.', '_' and '-', at most 100, the first a letter or digit"
        raise ConfigError(Mistake("--name", rule, got=ascii(name)[:80]))
    path = root / name
    if resume and not path.is_dir():
        raise ConfigError(Mistake("--resume", "there is no run to resume", got=str(path)))
    if path.exists() and not resume:
        raise ConfigError(Mistake("--name", "stands already: add --resume to go on or choose another", got=name))
    check_own(path, "--storage")
    return RunFolder(path), resume


def is_plain_name(text: str) -> bool:
    """Whether a text may be the name of a run's folder, which it cannot leave."""
    return _NAME.fullmatch(text) is not None


def plain_name(text: str) -> str:
    """A text as a name that any folder, and any tracking store, may have."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip(".-_")[:90] or "run"


def _numbered(root: Path, stem: str, resume: bool) -> str:
    """Of `stem`, `stem-2`, ... the last folder that stands, to resume; else the one after all that stand, with gaps.

    Raises:
        ConfigError: what stands there cannot be seen.
    """
    pattern = re.compile(re.escape(stem) + "(?:-([2-9]|[1-9][0-9]+))?")
    try:
        standing = [path.name for path in root.iterdir() if path.is_dir() or not resume] if root.is_dir() else []
    except OSError as error:
        raise ConfigError(Mistake("--storage", f"cannot be read: {error.strerror}", got=str(root))) from error
    numbers = [int(match[1] or 1) for match in map(pattern.fullmatch, standing) if match]
    number = max(numbers, default=0) + (0 if resume else 1)
    return stem if number <= 1 else f"{stem}-{number}"
