"""Freed memory stays at the heap's top unless the environment says otherwise; large tensors lie on huge pages."""

import ctypes
import json
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bbh_dist.allocator import on_huge_pages
from bbh_dist.factored import Adam, new_state
from bbh_dist.hypernets import Head

GLIBC = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="is about glibc's malloc, from 2.33"
)
ARRAY, ARRAYS = 24 << 20, 8
WORK = f"""
import ctypes, json
from bbh_dist.allocator import keep_freed_memory

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes, library.free.argtypes = (
    ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p])
library.mallinfo2.restype = Mallinfo2
keep_freed_memory()
arrays = [library.malloc({ARRAY}) for _ in range({ARRAYS})]
mapped = library.mallinfo2().hblkhd
for array in reversed(arrays):
    library.free(array)
print(json.dumps([mapped, library.mallinfo2().keepcost]))
"""


def mapped_and_kept(**settings: str) -> tuple[int, int]:
    """Bytes outside the heap while eight arrays of 24 MB stand, and free at its top once they are freed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", WORK]
    run = subprocess.run(command, env=environment | settings, capture_output=True, text=True, timeout=120, check=True)
    mapped, kept = json.loads(run.stdout)
    return mapped, kept


@GLIBC
def test_freed_memory_is_kept() -> None:
    mapped, kept = mapped_and_kept()
    assert mapped < ARRAY
    assert kept >= ARRAYS * ARRAY


@GLIBC
def test_the_environments_settings_stand() -> None:
    mapped, kept = mapped_and_kept(MALLOC_TRIM_THRESHOLD_="131072")
    assert mapped >= ARRAYS * ARRAY
    assert kept < ARRAY


@pytest.fixture
def _huge_pages() -> None:
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("huge pages are off on this machine, or it is not Linux")


@pytest.mark.usefixtures("_huge_pages")
def test_large_tensors_lie_on_huge_pages() -> None:
    """In mappings of their own: in the heap NumPy may have asked for huge pages before."""
    small, large = (on_huge_pages(mapped(size)) for size in (4 << 20, 64 << 20))
    assert ["hg" in flags_of(tensor) for tensor in (small, large)] == [False, True]
    assert large.zero_().sum() == 0


@pytest.mark.usefixtures("_huge_pages")
@pytest.mark.parametrize("rows", [range(20_000), range(5_000, 23_000)])
def test_heads_and_their_optimiser_state_lie_on_huge_pages(rows: range) -> None:
    """All rows are drawn in one call, a shard's own in blocks."""
    weight = Head(512, max(20_000, rows.stop), torch.Generator(), rows).weight.detach()
    state = new_state(weight, Adam(1e-3))
    assert all("hg" in flags_of(tensor) for tensor in (weight, *state.values()))


def mapped(size: int) -> torch.Tensor:
    """A tensor of so many bytes in a mapping of its own."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=torch.float32)


def flags_of(tensor: torch.Tensor) -> set[str]:
    """VmFlags (Linux's man page proc_pid_smaps) of the mapping in which a tensor's middle lies."""
    middle, inside = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        bounds = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if bounds:
            inside = int(bounds[1], 16) <= middle < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return set(line.split()[1:])
    raise AssertionError("no mapping has it")
