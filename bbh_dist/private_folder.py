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
    """Have torch's compiler keep its programs there, unless its own variable says where, set by the user or by torch.

    By itself it takes a folder in /tmp that anybody may have made before; to be called before it compiles anything.

    Raises:
        OSError: as above.
    """
    if _OF_TORCH not in os.environ:
        os.environ[_OF_TORCH] = str(private_folder() / "torch")
