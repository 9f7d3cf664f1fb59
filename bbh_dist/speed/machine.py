"""The machine that a number belongs to, and what a process has taken of its memory."""

import os
import platform
from pathlib import Path
from typing import Any

from bbh_dist.provenance import cores, loopback, provenance


def machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, device, threads of torch, load before the measurement, and versions."""
    facts = provenance()
    versions = {name.removeprefix("version."): value for name, value in facts.items() if name.startswith("version.")}
    versions |= {name: facts[name] for name in ("commit", "dirty") if name in facts}
    return {
        "cpu": facts["machine.cpu"],
        "cores": cores(),
        "device": device,
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "system": facts["machine.system"],
        "versions": versions,
    }


def peak_memory() -> int:
    """Most bytes of memory that this process has held so far (VmHWM)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if platform.system() == "Darwin" else 1024 * peak


def free_memory() -> int | None:
    """Bytes that new processes can have; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None


def loopback_bytes() -> int | None:
    """Bytes that the loopback interface has carried since the machine started; None where it is not told."""
    try:
        lines = Path("/proc/net/dev").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[9]) for line in lines if line.strip().startswith(f"{loopback()}:"))
    except (OSError, StopIteration):
        return None
