"""What is to be told to the tracking store, on disk and in order: the file is the queue, so memory does not grow."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from bbh_dist.storage import RunFolder

Operation = dict[str, Any]
"""`run` (its name), `kind`, and what the kind needs."""

_LONGEST_LINE = 1 << 24
_MOST_KEPT = 10_000
"""Operations that a full disk does not take wait in memory, up to this many."""


@dataclass
class Delivered:
    """How far the store has been told, and what it answered."""

    offset: int = 0
    """Bytes of the spool."""
    run_ids: dict[str, str] = field(default_factory=dict)
    """Name of a run in the spool to its id in the store."""
    in_doubt: list[str] = field(default_factory=list)
    """Runs of which a second may appear, made by a request that was given up and arrives late."""


class Spool:
    """`operations.jsonl` in a folder, one operation a line, and beside it what has become of them.

    Only the process that holds the run folder's lock opens it. What was written survives the death of the process, and
    after `flush` that of the machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path, self._refused = folder / "operations.jsonl", folder / "refused.jsonl"
        self._kept: list[bytes] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the files where they are missing, and cut off a line that a dying process left unfinished."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        start = max(0, self.size - _LONGEST_LINE)
        whole = start + os.pread(self._file, _LONGEST_LINE, start).rfind(b"\n") + 1
        if whole < self.size:  # what is whole stays untouched, its time of change too
            os.ftruncate(self._file, whole)

    def close(self) -> int:
        """Let go of the file and return how many operations are lost, as the disk is still full."""
        with contextlib.suppress(OSError):
            self.put()
        os.close(self._file)
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that have been written."""
        return os.fstat(self._file).st_size

    def put(self, *operations: Operation) -> None:
        """Append operations, all or none; while the disk is full they wait for the next call.

        Raises:
            OSError: the disk has been full for too long.
        """
        with self._lock:
            self._kept += [json.dumps(operation).encode() + b"\n" for operation in operations]
            try:
                self._append(b"".join(self._kept))
                self._kept.clear()
            except OSError:
                if len(self._kept) > _MOST_KEPT:
                    raise

    def _append(self, data: bytes) -> None:
        before = self.size
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def flush(self) -> None:
        """Have the disk hold what was appended."""
        os.fsync(self._file)

    def read(self, offset: int, most: int) -> tuple[list[Operation], int]:
        """Up to `most` operations from an offset on, and the offset behind them; of kind `damaged` what is none."""
        with self._lock, open(self.path, "rb") as file:
            file.seek(offset)
            lines = list(islice(file, most))
        damaged = {"run": "", "kind": "damaged"}
        operations = [_parsed(line) or damaged | {"line": line.decode(errors="replace")} for line in lines]
        return operations, offset + sum(map(len, lines))

    def count(self, offset: int) -> int:
        """Operations from an offset on."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            return sum(1 for _ in file)

    def __iter__(self) -> Iterator[Operation]:
        with open(self.path, "rb") as file:
            for line in file:
                operation = _parsed(line)
                if operation is not None:
                    yield operation

    def delivered(self) -> Delivered:
        """What was stored last; what cannot be read means that everything is told again, which changes nothing."""
        try:
            found = Delivered(**json.loads((self.folder / "delivered.json").read_text(encoding="utf-8")))
            return found if found.offset <= self.path.stat().st_size else Delivered()
        except (OSError, ValueError, TypeError):
            return Delivered()

    def store(self, delivered: Delivered) -> None:
        """Remember how far the store has been told, atomically."""
        RunFolder(self.folder).write("delivered.json", json.dumps(asdict(delivered)))

    def refuse(self, operation: Operation, reason: str) -> None:
        """Set an operation aside that the store will not take, so that it does not hold up the others."""
        with open(os.open(self._refused, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": reason, "operation": operation}) + "\n")

    def refused(self) -> list[dict[str, Any]]:
        """What has been set aside, `operation` and `reason` of each."""
        with contextlib.suppress(FileNotFoundError):
            found = [_parsed(line, ("operation", "reason")) for line in self._refused.read_bytes().splitlines()]
            return [entry for entry in found if entry is not None]
        return []

    def forget_refused(self) -> None:
        """Have nothing set aside."""
        self._refused.unlink(missing_ok=True)


def _parsed(line: bytes, keys: tuple[str, ...] = ("run", "kind")) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and all(key in found for key in keys) else None
