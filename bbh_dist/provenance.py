"""Where a number comes from: versions, commit, machine and command of this process."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bbh_dist.masking import masked

_PACKAGES = ("bbh_dist", "torch", "ray", "optuna", "mlflow", "numpy")


def provenance() -> dict[str, str]:
    """Flat, printable facts: `version.*`, `commit`, `dirty`, `machine.*`, `command`."""
    facts = {f"version.{name}": version for name in _PACKAGES if (version := _version(name))}
    facts["version.python"] = platform.python_version()
    facts |= _commit()
    facts["machine.cpu"] = _cpu()
    facts["machine.cores"] = str(cores())
    facts["machine.system"] = platform.platform()
    if "commit" in facts:
        facts["mlflow.source.git.commit"] = facts["commit"]  # where MLflow's own pages look for it
    facts["command"] = facts["mlflow.source.name"] = masked(
        shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])
    )
    return facts


def cores() -> int:
    """CPU cores that this process may use; where the system does not say (macOS), those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def loopback() -> str:
    """Name of the interface over which the processes of one machine talk."""
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in ("lo", "lo0") if name in names), "lo")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> dict[str, str]:
    """Commit of the checkout that this package runs from, and whether files differ from it; empty outside of one."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != folder.parent:
            return {}
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": str(bool(changed)).lower()}
    except (OSError, subprocess.SubprocessError):
        return {}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
