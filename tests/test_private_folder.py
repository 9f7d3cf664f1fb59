"""Where compiled programs lie; a folder that others can use is refused (factored/test_kernel_build.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPILES = """
import torch, torch._dynamo
from bbh_dist.private_folder import keep_torch_programs_private
keep_torch_programs_private()
from torch._inductor.runtime.cache_dir_utils import cache_dir
print(cache_dir())
"""


@pytest.mark.parametrize(("named", "expected"), [(None, "bbh_dist-{uid}/torch"), ("mine", "mine")])
def test_torch_keeps_its_programs_where_nobody_else_can_write(tmp_path: Path, named: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    environment["TMPDIR"] = str(tmp_path)
    if named is not None:
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / named)
    command = [sys.executable, "-c", COMPILES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    folder = tmp_path / expected.format(uid=os.getuid())
    assert Path(done.stdout.strip()) == folder
    assert named is not None or folder.parent.stat().st_mode & 0o777 == 0o700
