"""Whether data are the ones that published figures belong to."""

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from bbh_dist.config import DataError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Have what the system says while a path is read be a mistake of the data.

    Raises:
        DataError: the path cannot be read.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def file_sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tell_unknown(path: Path, found: str, known: str) -> None:
    """Say on stderr where data of which nobody publishes a checksum are others than this project's tables used.

    They may be just as good; results are then not to be compared with the tables.
    """
    if found != known:
        print(f"{path}: not the data of this project's tables: sha256 {found}, theirs {known}", file=sys.stderr)
