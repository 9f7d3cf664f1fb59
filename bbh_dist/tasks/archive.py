"""NumPy archives, read without pickle and no further than memory goes."""

import os
import zipfile
from pathlib import Path

import numpy as np

from bbh_dist.config import DataError


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name.

    Raises:
        DataError: there is no such file, or it is no whole archive of arrays without objects that fits in memory.
    """
    try:
        check_size(path)
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded as archive:
                return {name: np.asarray(archive[name]) for name in archive.files}
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # of a damaged file NumPy, zipfile, zlib and Python's parser raise a dozen kinds
        raise DataError(f"{path}: not a readable .npz archive: {' '.join(str(error).split())}") from error
    raise DataError(f"{path}: must be an .npz archive, got a single array")


def array_header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array of an archive, which is not read.

    Raises:
        DataError: there is no such file or array, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            return shape, dtype
    except Exception as error:  # as above
        raise DataError(f"{path}: {name} cannot be read: {' '.join(str(error).split())}") from error


def check_size(path: Path) -> None:
    """See that an archive is a file, and that all of it fits in this machine's memory once it is unpacked.

    Raises:
        DataError: it is something else (a pipe would be waited for), or too large: a few kilobytes may unpack to
            terabytes.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a readable .npz archive: not a file")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    memory = _memory_bytes()
    if unpacked > memory:
        raise DataError(f"{path}: must fit in memory, {memory:,} bytes, it unpacks to {unpacked:,}")


def _memory_bytes() -> int:
    """This machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
