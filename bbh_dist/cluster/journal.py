"""The file in which Optuna keeps a study, opened so that what a killed process or a damaged disk left is seen."""

import json
import os
import sys
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.config.errors import shown

JOURNAL = "optuna.journal"


def open_journal(folder: Path, *, begun: bool) -> JournalStorage:
    """Optuna's storage in `optuna.journal` of a folder that this process holds.

    A last line that was not written to its end is cut off, which is said: nobody has been told that it stands. A lock
    that a killed process left is taken away, for which Optuna would wait half a minute.

    Raises:
        ConfigError: another line is damaged, or the file is missing or empty though the study has `begun`.
    """
    path = folder / JOURNAL
    (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)
    content = path.read_bytes() if path.exists() else b""
    if begun and not content:
        rule = "is missing or empty though the study has begun: put it back, or choose another --name"
        raise ConfigError(Mistake(str(path), rule))
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].splitlines(), 1):
        if not _is_record(line):
            rule = "is damaged: put a good copy of the file back, or choose another --name"
            raise ConfigError(Mistake(f"{path}:{number}", rule, got=shown(line.decode(errors="replace"))))
    if whole < len(content):
        print(f"{path}: its last line was not written to the end and is left out", file=sys.stderr)
        os.truncate(path, whole)
    try:
        return JournalStorage(JournalFileBackend(str(path)))
    except Exception as error:  # Optuna replays the records; those of another file may lack anything
        reason = f"is no journal of Optuna's ({type(error).__name__}: {error})"
        raise ConfigError(Mistake(str(path), reason)) from error


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
