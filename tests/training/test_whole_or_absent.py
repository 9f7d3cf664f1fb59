"""Checkpoints are whole or absent: writers that are killed inside the save, and a disk that is full."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = 25
FULL_DISK = """
import sys
from pathlib import Path
import torch
from bbh_dist.training import Workers
from bbh_dist.training.checkpoints import CheckpointError, newest_checkpoint, save_checkpoint
folder = Path(sys.argv[1])
def save(epoch, numbers):
    save_checkpoint(folder, epoch, {"w": torch.full((numbers,), float(epoch))}, {"epoch": epoch}, Workers())
save(1, 20_000)  # 80 kB of 256
try:
    save(2, 60_000)
except CheckpointError as error:
    print(error)
print(sorted(path.name for path in folder.iterdir()), newest_checkpoint(folder, Workers()).epoch)
save(3, 20_000)
print(sorted(path.name for path in folder.iterdir()), newest_checkpoint(folder, Workers()).epoch)
"""


def run(*command: str) -> list[str]:
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stderr
    return done.stdout.splitlines()


def test_checkpoints_are_whole_or_absent_where_the_writer_is_killed_inside_the_save(tmp_path: Path) -> None:
    script = str(Path(__file__).parent / "save_until_killed.py")
    rounds = [json.loads(line) for line in run(sys.executable, script, str(tmp_path / "x"), str(ROUNDS), "0")]
    assert len(rounds) == ROUNDS
    for before, saved, found, _ in rounds:
        assert before < saved <= found <= saved + 1  # killed between the rename and the note of it
    assert sum(cut_off for *_, cut_off in rounds) >= ROUNDS // 4  # most of the time is spent inside a save


def test_checkpoints_are_whole_or_absent_on_a_full_disk(tmp_path: Path) -> None:
    """A real one: a file system of 256 kB in memory, in a namespace of its own."""
    own = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare (1), and namespaces that this user may make")
    mounted = f"mount -t tmpfs -o size=256k small '{tmp_path}' && exec \"$@\""
    failed, left, after = run(*own, "sh", "-c", mounted, "sh", sys.executable, "-c", FULL_DISK, str(tmp_path))
    assert failed.startswith(f"{tmp_path / 'epoch-000002'} cannot be written: ")
    assert "No space left on device" in failed
    assert left == "['epoch-000001'] 1"
    assert after == "['epoch-000001', 'epoch-000003'] 3"
