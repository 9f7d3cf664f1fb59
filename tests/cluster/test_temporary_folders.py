"""Ray's temporary folders: those of killed drivers are taken away, those in use and other people's are not."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bbh_dist.cluster.temporary import temporary_folder

HOLD = """
import sys
from bbh_dist.cluster.temporary import temporary_folder
with temporary_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def test_folders_of_killed_drivers_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "bbh-somebody").mkdir()
    (tmp_path / "bbh-once-more" / "session_2026-01-01" / "logs" / "old").mkdir(parents=True)  # by an orphan
    (tmp_path / "bbh-mine" / "session_2026-01-01" / "logs").mkdir(parents=True)
    (tmp_path / "bbh-mine" / "session_2026-01-01" / "notes.txt").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "driver").touch()
    (tmp_path / "bbh-link").symlink_to(tmp_path / "elsewhere")
    environment = {"TMPDIR": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        with temporary_folder() as own:
            assert (theirs.is_dir(), own.is_dir()) == (True, True)
        assert not own.exists()
        other.kill()
    assert theirs.is_dir()
    with temporary_folder():
        assert not theirs.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bbh-link",
        "bbh-mine",
        "bbh-somebody",
        "elsewhere",
    ]
    assert (tmp_path / "elsewhere" / "driver").exists()
