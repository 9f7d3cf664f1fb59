"""The folder of this user's compiled programs. Code is loaded from it, so nobody else may be able to write there."""

import os
import stat
import tempfile
from pathlib import Path

_OF_TORCH = "TORCHINDUCTOR_CACHE_DIR"


def private_folder() -> Path:
    """The folder, made where it is not there.

    Raises:
        OSError: it can't be made, or others can use it.
    """
    folder = Path(tempfile.gettempdir()) / f"bbh_dist-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a folder that only you can use (mode 0700); remove it")
    return folder


def keep_torch_programs_private() -> None:
    """Have torch's compiler keep its programs there, unless its own variable names another folder.

    By itself it takes one in the folder for temporary files that anybody may have made before, and says so in its
    variable when it is imported.

    Raises:
        OSError: as above.
    """
    named = os.environ.get(_OF_TORCH)
    if named is None or Path(named).match(f"{tempfile.gettempdir()}/torchinductor_*"):
        os.environ[_OF_TORCH] = str(private_folder() / "torch")
