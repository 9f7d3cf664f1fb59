"""A second driver on the same folder is refused, also one on another machine that shares the storage."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bbh_dist import lease
from bbh_dist.config import ConfigError
from bbh_dist.lease import LEASE, held

HOLD = """
import sys
from pathlib import Path
from bbh_dist import lease
lease._RENEW_SECONDS = 0.1
with lease.held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# Another kernel, to all appearances: another boot id, and file locks that this one does not see.
ELSEWHERE = (
    'mount --bind "$1/boot" /proc/sys/kernel/random/boot_id && mount --bind "$1/other" "$1/lock" && shift && "$@"'
)


@contextlib.contextmanager
def driver(folder: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder."""
    line = [*prefix, sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n", process.stderr
        yield process
        process.kill()


def left_by(folder: Path, machine: str, seconds: float) -> None:
    """A lease that has `seconds` to go."""
    who = {"owner": "x", "machine": machine, "host": "node-7", "pid": 4711, "deadline": time.time() + seconds}
    (folder / LEASE).write_text(json.dumps(who))


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught, held(folder):
        pytest.fail("the folder was given twice")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_second_driver_is_refused_and_a_killed_one_leaves_the_folder_free(tmp_path: Path) -> None:
    with driver(tmp_path) as process:
        assert refusal(tmp_path).startswith("--resume: another process works on it now")
        process.kill()
        process.wait()
        assert (tmp_path / LEASE).exists()
        with held(tmp_path):
            assert json.loads((tmp_path / LEASE).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LEASE).exists()


def test_a_second_driver_on_another_machine_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boot").write_text("another")
    (tmp_path / "other").touch()
    (tmp_path / "lock").touch()
    elsewhere = ["unshare", "--mount", "sh", "-c", ELSEWHERE, "sh", str(tmp_path)]
    if subprocess.run([*elsewhere, "true"], capture_output=True).returncode:
        pytest.skip("needs root and mount namespaces to make a second machine")
    with driver(tmp_path, *elsewhere) as process:
        seen = json.loads((tmp_path / LEASE).read_text())
        assert f"process {seen['pid']} on {seen['host']}, which has" in refusal(tmp_path)
        while json.loads((tmp_path / LEASE).read_text())["deadline"] == seen["deadline"]:
            assert process.poll() is None
            time.sleep(0.05)  # it is renewed
        left_by(tmp_path, lease._machine(), 60)  # and taken over, by a machine for which it had run out
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert "another machine has taken it over" in process.stderr.read()


def test_a_driver_that_is_lost_with_its_machine_leaves_the_folder_free_after_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_SETTLE_SECONDS", 0.01)
    left_by(tmp_path, "another", 50)
    assert "process 4711 on node-7, which has" in refusal(tmp_path)
    left_by(tmp_path, "another", -1)
    with held(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_of_two_machines_that_find_a_lease_run_out_one_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_by(tmp_path, "another", -1)
    monkeypatch.setattr(time, "sleep", lambda seconds: left_by(tmp_path, "a third", 60))
    assert refusal(tmp_path).startswith("--resume: another process works on it now")
    assert json.loads((tmp_path / LEASE).read_text())["machine"] == "a third"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"owner": "x"}'])
def test_a_damaged_lease_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / LEASE).write_text(content)
    assert f"{LEASE}: is damaged: where no process works on the folder, take this file away" in refusal(tmp_path)
    assert (tmp_path / LEASE).read_text() == content
