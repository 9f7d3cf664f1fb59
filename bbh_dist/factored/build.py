"""Building `kernel.c` with the system's compiler, once per machine, and loading it."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bbh_dist.private_folder import private_folder

_SOURCE = Path(__file__).with_name("kernel.c")
# Nothing here may let NaN and infinity be treated as other numbers (-ffast-math would).
_FLAGS = ("-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math")
_TIMEOUT_SECONDS = 300


class Unavailable(Exception):
    """Why there is no compiled kernel."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None after one line on stderr that says why not."""
    try:
        return ctypes.CDLL(str(_built(private_folder(), _compiler())))
    except (Unavailable, OSError) as error:
        why = " ".join(str(error).split())
        print(f"bbh_dist: sweeps in plain torch, several times slower: {why}", file=sys.stderr)
        return None


def _compiler() -> list[str]:
    """Command of the compiler: CC, which may hold flags, or the first of cc, gcc and clang."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        if shutil.which(command[0]):
            return command
    raise Unavailable(f"no C compiler {named[0] if named else 'cc, gcc or clang'}; install gcc or clang, or set CC")


def _built(folder: Path, compiler: list[str]) -> Path:
    """Path of the library, compiled unless a process before did so with the same source, flags, compiler and CPU."""
    version = _run([*compiler, "--version"]).stdout
    parts = [_SOURCE.read_text(), *compiler, *_FLAGS, version, platform.machine(), _cpu_model()]
    target = folder / f"kernel-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:24]}.so"
    if target.exists():
        return target
    # Many processes may start at once: each writes a file of its own, the last rename wins.
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        arguments = [*_FLAGS, "-o", temporary, str(_SOURCE), "-lm"]
        result = _run([*compiler, "-march=native", *arguments])
        if result.returncode:
            result = _run([*compiler, *arguments])
        if result.returncode:
            raise Unavailable(
                f"{shlex.join(compiler)} failed: {result.stderr.strip()[-300:]}; install gcc or clang, or set CC"
            )
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} failed: {error}; install gcc or clang, or set CC") from error


def _cpu_model() -> str:
    """What -march=native depends on: a folder in /tmp may outlive the machine that it was on (images, snapshots)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    keys = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(keys)}))
