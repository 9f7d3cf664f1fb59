"""Who works on a folder: one process at a time, on one machine or on several that share the storage.

On one machine a file lock decides, of which the operating system lets go when the process ends, however it does.
Between machines such locks may not hold (NFS without a lock service, object stores): there a file says who works on
the folder and until when, and whoever does renews it. The clocks of the machines have to agree to a few seconds.
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bbh_dist.config import ConfigError, Mistake

LEASE = "lease.json"
LEASE_SECONDS = 60.0
"""A folder whose driver is lost with its machine is free after this."""
_RENEW_SECONDS = 10.0
_SETTLE_SECONDS = 1.0
"""Two machines that find a lease run out both write theirs; the last one's stands after this."""
_LOST = 1


@contextlib.contextmanager
def held(folder: Path, what: str = "--resume") -> Iterator[None]:
    """Hold a folder against all other processes; ends this one at once should another machine have taken it over.

    `what` wants it, and stands before the mistake.

    Raises:
        ConfigError: another process works on it, or its lease cannot be read.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(folder / "lock", "a", encoding="utf-8"))
        except OSError as error:
            raise ConfigError(Mistake(what, f"cannot be written: {error.strerror}", got=str(folder))) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _refusal(folder, what) from error
        lease = _Lease(folder, what)
        lease.take()
        lease.start()
        try:
            yield
        finally:
            lease.give_back()


class _Lease(threading.Thread):
    """The file that says who works on a folder, and the thread that renews it."""

    def __init__(self, folder: Path, what: str) -> None:
        super().__init__(name="lease", daemon=True)
        self.folder, self.path, self.what = folder, folder / LEASE, what
        self.owner = uuid.uuid4().hex
        self._done = threading.Event()

    def take(self) -> None:
        """Write one's own, unless another machine's has not run out.

        One of this machine has been left by a process that was killed, as it no longer holds the file lock.
        """
        found = self._read()
        is_foreign = found is not None and found["machine"] != _machine()
        if found is not None and is_foreign and found["deadline"] > time.time():
            left = found["deadline"] - time.time()
            raise _refusal(
                self.folder, self.what, f": process {found['pid']} on {found['host']}, which has {left:.0f} s to renew"
            )
        self._write()
        if is_foreign:
            time.sleep(_SETTLE_SECONDS)
            if not self._is_own():
                raise _refusal(self.folder, self.what)

    def run(self) -> None:
        """Renew it until it is given back."""
        renewed = time.time()
        while not self._done.wait(_RENEW_SECONDS):
            try:
                if not self._is_own():
                    self._end(f"another machine has taken it over, or its {LEASE} is gone")
                self._write()
                renewed = time.time()
            except (OSError, ConfigError) as error:  # the storage is away; until the deadline nobody else may come
                if time.time() > renewed + LEASE_SECONDS:
                    self._end(f"the lease could not be renewed ({error})")

    def give_back(self) -> None:
        """Leave the folder to others."""
        self._done.set()
        self.join()
        with contextlib.suppress(OSError, ConfigError):
            if self._is_own():
                self.path.unlink()

    def _is_own(self) -> bool:
        found = self._read()
        return found is not None and found["owner"] == self.owner

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            return {key: found[key] for key in ("owner", "machine", "host", "pid", "deadline")}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            rule = "is damaged: where no process works on the folder, take this file away"
            raise ConfigError(Mistake(str(self.path), rule)) from error

    def _write(self) -> None:
        who = {"owner": self.owner, "machine": _machine(), "host": socket.gethostname(), "pid": os.getpid()}
        temporary = self.folder / f".{LEASE}.{self.owner}"
        temporary.write_text(json.dumps({**who, "deadline": time.time() + LEASE_SECONDS}), encoding="utf-8")
        temporary.replace(self.path)

    def _end(self, reason: str) -> None:
        """End at once: whatever this process still wrote would stand between another one's."""
        print(f"failed: {self.folder}: {reason}", file=sys.stderr, flush=True)
        os._exit(_LOST)


def _refusal(folder: Path, what: str, who: str = "") -> ConfigError:
    return ConfigError(Mistake(what, f"another process works on it now{who}", got=str(folder)))


def _machine() -> str:
    """Which running kernel this is: processes that share it see each other's file locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{socket.gethostname()}-{uuid.getnode()}"
