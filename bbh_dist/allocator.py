"""Where training steps find memory: what they free and soon take again is kept, and large arrays lie on large pages."""

import ctypes
import mmap
import os
import sys
from functools import cache

from torch import Tensor

_LARGEST_KEPT_BYTES = 32 << 20
"""Larger ones are rare, and would leave large holes."""
_MOST_KEPT_BYTES = 256 << 20
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h."""
_SETTINGS = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}


@cache
def keep_freed_memory() -> None:
    """Keep up to 256 MB free at the heap's top, of arrays of up to 32 MB each, for the rest of the process.

    glibc gives memory back when twice as much as the largest freed array is free, and a step that needs it takes it
    page by page again: on one core of an AMD EPYC 5,000 page faults and 9 of 100 ms with the sliced generator on LeNet,
    900 and 1.8 of 20 ms with MAP. Settings in the environment are left as they are, and so are other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or _SETTINGS & os.environ.keys():
        return
    if mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES):  # either setting alone ends glibc's own adjustment of both
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT_BYTES)


def on_huge_pages(tensor: Tensor) -> Tensor:
    """The tensor, with advice to Linux to put what is not yet written of it on pages of 2 MB, if it is over 32 MB.

    Such ones are mapped each by itself, so nothing else is meant. On pages of 4 KB the outputs of a head of 0.8 GB take
    7 to 12 % longer on one core of an Intel Xeon.
    """
    is_large = tensor.device.type == "cpu" and tensor.nbytes > _LARGEST_KEPT_BYTES
    if sys.platform == "linux" and is_large and type(tensor) is Tensor:  # a fake one has no memory
        start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        size = ctypes.c_size_t(tensor.data_ptr() + tensor.nbytes - start)
        # Where there are none it fails, without effect.
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), size, mmap.MADV_HUGEPAGE)
    return tensor
