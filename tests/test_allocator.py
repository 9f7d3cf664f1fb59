"""Freed memory is taken again without page faults, unless the environment says how it is to be."""

import ctypes
import os
import subprocess
import sys

import pytest

GLIBC = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="is about glibc's malloc"
)
PAGES = 100 * (24 << 20) // os.sysconf("SC_PAGE_SIZE")
FAULTS = """
import resource, sys
import torch
from bbh_dist.allocator import keep_freed_memory

def work():
    for _ in range(100):
        [torch.ones(1 << 21) for _ in range(3)]

keep_freed_memory()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**settings: str) -> int:
    """While 24 MB are taken and freed a hundred times."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS]
    run = subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=120, check=True)
    return int(run.stdout)


@GLIBC
def test_freed_memory_is_kept() -> None:
    assert faults() < PAGES / 50


@GLIBC
def test_the_environments_settings_stand() -> None:
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > PAGES / 2
