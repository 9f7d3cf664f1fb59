"""What Ray pickles stays in a folder of the same user: one of someone else or writable by all is refused."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bbh_dist.config import ConfigError
from bbh_dist.ownership import check_own
from bbh_dist.storage import open_folder

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give folders away")
SOMEONE = 12345


def message(storage: Path, name: str | None = "x", resume: bool = False) -> str:
    with pytest.raises(ConfigError) as caught:
        open_folder(str(storage), name, "stem", resume)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@needs_root
@pytest.mark.parametrize("which", ["runs", "runs/x"])
def test_a_folder_of_someone_else_is_refused(tmp_path: Path, which: str) -> None:
    (tmp_path / "runs" / "x").mkdir(parents=True)
    os.chown(tmp_path / which, SOMEONE, SOMEONE)
    assert f"must belong to you (user 0), not to user {SOMEONE}" in message(tmp_path / "runs", resume=True)


@needs_root
def test_a_link_of_someone_else_is_refused(tmp_path: Path) -> None:
    """As anybody may put into /tmp."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").symlink_to(tmp_path / "mine")
    os.lchown(tmp_path / "runs" / "x", SOMEONE, SOMEONE)
    assert "must belong to you" in message(tmp_path / "runs", resume=True)


@pytest.mark.parametrize("which", ["", "runs", "runs/x"])
@pytest.mark.parametrize("name", ["x", None])
def test_a_folder_writable_by_all_is_refused(tmp_path: Path, which: str, name: str | None) -> None:
    for path in ("runs/x", "runs/stem"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / (which if name or which != "runs/x" else "runs/stem")).chmod(0o777)
    assert "must not be writable by all: chmod o-w " in message(tmp_path / "runs", name, resume=True)


def test_a_folder_in_which_only_owners_remove_may_be_writable_by_all(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    check_own(tmp_path / "shared" / "runs", "--storage")
    with pytest.raises(ConfigError, match="writable by all"):
        check_own(tmp_path / "shared", "--storage")


def test_what_a_command_writes_is_never_writable_by_all(tmp_path: Path) -> None:
    """Under a umask of 0."""
    script = (
        "import os; os.umask(0)\n"
        "from pathlib import Path; from bbh_dist.command_line import run\n"
        "run(lambda _: (Path('made').mkdir(), Path('made/file').write_text('x')), [])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path)
    assert done.returncode == 0
    for path in (tmp_path / "made", tmp_path / "made" / "file"):
        assert not path.stat().st_mode & stat.S_IWOTH


def test_the_record_that_may_hold_a_password_is_never_readable_by_others(tmp_path: Path) -> None:
    folder, _ = open_folder(str(tmp_path), "x", "stem", False)
    folder.create("", {"tracking_uri": "postgresql://me:hidden@host/db"})
    assert (folder.path / "run.json").stat().st_mode & 0o777 == 0o600
