"""Clusters of several nodes: what is checked before the first run, and what `bbh_dist.cluster check` finds."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bbh_dist.cluster.files import read_file
from bbh_dist.cluster.hosts import Login, check_hosts, log_tail, still_to_do
from bbh_dist.cluster.nodes import differences
from bbh_dist.cluster.session import Resources, nodes_to_come
from bbh_dist.config import ConfigError

ROOT = Path(__file__).parents[2]
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64, "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def standing(*nodes: str) -> Iterator[str]:
    """The address of a cluster whose nodes have so many CPUs."""
    command = [sys.executable, str(Path(__file__).with_name("standing_cluster.py")), *nodes]
    process = subprocess.Popen(
        command,
        env={**os.environ, **TOKEN},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with standing("1", "2") as found:
        yield found


def command(module: str, *arguments: str, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"bbh_dist.{module}", *arguments],
        cwd=folder,
        env={**os.environ, **TOKEN, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


IN_TURN = """
import importlib, json, sys
from bbh_dist.command_line import run
for module, *arguments in json.loads(sys.argv[1]):
    try:
        run(importlib.import_module(f"bbh_dist.{module}").main, arguments)
    except SystemExit as end:
        print(f"ended with {end.code}", file=sys.stderr, flush=True)
"""


def refusals(folder: Path, *commands: list[str]) -> list[str]:
    """What commands say that end with 2, in one process, as each would import torch and Ray for the same answer."""
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)],
        cwd=folder,
        env={**os.environ, **TOKEN, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    *said, rest = done.stderr.split("ended with 2\n")
    assert (done.returncode, rest, len(said)) == (0, "", len(commands)), done.stderr
    return said


def test_versions_that_differ_are_named_with_their_nodes() -> None:
    same = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0", "bbh_dist": "0.1.0"}
    answers = [{"node": "a", **same}, {"node": "b", **same, "torch": "2.12.0"}, {"node": "c", "error": "lost"}]
    assert list(differences(answers)) == [
        "c answers nothing: lost",
        "torch must be the same on all nodes: a has 2.13.0, b has 2.12.0",
    ]


def test_what_is_to_be_done_before_ray_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = read_file(ROOT / "jobs" / "cluster_local.yaml")
    token, key = tmp_path / ".ray" / "auth_token", tmp_path / ".ssh" / "id_ed25519"
    assert any("the token" in line and "ray get-auth-token" in line for line in still_to_do(file))
    for path in (token, key):
        path.parent.mkdir()
        path.touch(mode=0o644)
        assert any(f"{path.name}: others may read it (0644)" in line for line in still_to_do(file))
        path.chmod(0o600)
    assert not any("the token" in line or "the key" in line for line in still_to_do(file))


def test_images_of_the_project_s_file_are_still_to_be_chosen() -> None:
    assert sum("choose an ImageId" in line for line in still_to_do(read_file(ROOT / "cluster.yaml"))) == 2


def test_the_head_knows_what_its_cluster_grows_to(tmp_path: Path) -> None:
    path = tmp_path / "ray_bootstrap_config.yaml"
    assert nodes_to_come(path) == []
    path.write_text((ROOT / "cluster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    assert nodes_to_come(path) == [Resources(4, 1)] * 4


def test_a_host_without_ssh_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    text = (ROOT / "jobs" / "cluster_local.yaml").read_text(encoding="utf-8")
    # Nothing listens there: the name is of a top-level domain that never resolves (RFC 2606).
    path.write_text(text.replace("[192.168.1.11, 192.168.1.12]", "[bbh.invalid]").replace("192.168.1.10", "a.invalid"))
    with pytest.raises(ConfigError) as caught:
        check_hosts(read_file(path))
    for line, host in zip(str(caught.value).splitlines(), ["a.invalid", "bbh.invalid"], strict=True):
        number = 1 + next(i for i, text in enumerate(path.read_text().splitlines()) if host in text)
        assert line.startswith(f"{path}:{number}: provider.")
        assert "must answer over ssh (" in line
        assert line.endswith(f", got {host}")
    assert "cannot be read over ssh" in log_tail(Login(), "a.invalid")


@pytest.mark.cluster
def test_no_deadlock_what_no_cluster_can_hold_is_refused_before_the_first_trial(address: str, tmp_path: Path) -> None:
    place = ["--address", address, "--storage", str(tmp_path / "runs"), "--tracking-uri", "http://127.0.0.1:9"]
    space, job, suite = (
        str(ROOT / name) for name in ("tune_spaces/bbh.yaml", "jobs/digits5_map.yaml", "jobs/digits5.yaml")
    )
    *too_many, too_large = refusals(
        tmp_path,
        ["tune", "--space", space, "--workers", "4", *place],
        ["train", "--job", job, "--workers", "4", *place],
        # All rows fit but the last.
        ["benchmark", "--suite", suite, "--set", "rows.bbh-layerwise.parallel.workers=4", *place],
        ["tune", "--space", space, "--set", "base.parallel.cpus_per_worker=3", *place],
    )
    assert len(too_many) == 3
    for said in too_many:
        assert said.endswith("a run needs 4 workers x 1 CPUs = 4 CPUs, the cluster has 3\n")
    assert "a run needs 1 workers of 3 CPUs, the cluster's 2 nodes hold 0 + 0" in too_large
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_on_several_nodes_a_tracking_store_in_a_file_is_refused(address: str, tmp_path: Path) -> None:
    done = command(
        "tune", "--space", str(ROOT / "tune_spaces" / "bbh.yaml"), "--address", address, folder=tmp_path
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("--tracking-uri: must be a server on several nodes, such as http://HEAD:5000")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
@pytest.mark.skipif(os.geteuid() != 0, reason="a mount of its own for a node needs root")
def test_storage_and_data_that_a_node_does_not_see_are_refused(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    with standing("1", f"1:{tmp_path / 'own'}") as address:
        storage = str(tmp_path / "own" / "runs")
        shared = command("cluster", "check", "--address", address, "--nodes", "2", "--storage", str(tmp_path))
        assert shared.returncode == 0, shared.stderr
        apart = command("cluster", "check", "--address", address, "--nodes", "2", "--storage", storage)
        assert apart.returncode == 1
        assert f"does not see {tmp_path / 'own'} as the driver does: storage must be a folder" in apart.stderr
        space, uri = str(ROOT / "tune_spaces" / "bbh.yaml"), "http://127.0.0.1:9"
        done = command("tune", "--space", space, "--address", address, "--storage", storage, "--tracking-uri", uri)
        assert done.returncode == 2
        assert done.stderr.startswith("--storage: node ")
        archive = tmp_path / "own" / "own.npz"
        inputs, labels = np.zeros((30, 4)), np.arange(30) % 2
        np.savez(archive, x_train=inputs, y_train=labels, x_test=inputs, y_test=labels, x_outlier=inputs)
        changes = ("--set", f"task=npz:{archive}", "--set", "batch_size=9", "--storage", str(tmp_path / "runs"))
        done = command("tune", "--space", space, "--address", address, "--tracking-uri", uri, *changes)
        archive.unlink()
        assert done.returncode == 2
        assert done.stderr.startswith("--data: node ")
        assert f"has no data as the driver has ({archive}: no such file)" in done.stderr
    assert list((tmp_path / "own").iterdir()) == []


@pytest.mark.cluster
def test_check_says_that_a_cluster_is_whole(address: str, tmp_path: Path) -> None:
    done = command("cluster", "check", "--address", address, "--nodes", "2", "--storage", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 nodes: ")
    assert "the same on all: python 3." in done.stdout
    assert f"{tmp_path / 'runs'} is one folder on all nodes, and writable" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cluster
def test_check_counts_missing_nodes_and_names_a_silent_tracking_server(address: str) -> None:
    missing = command("cluster", "check", "--address", address, "--nodes", "3", "--timeout", "1")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("failed: 2 of 3 nodes are there after 1 s")
    uri = "http://me:sesame@127.0.0.1:9"
    silent = command("cluster", "check", "--address", address, "--nodes", "2", "--tracking-uri", uri)
    assert silent.returncode == 1
    assert silent.stderr.count("http://me:***@127.0.0.1:9 does not answer") == 2
    assert "sesame" not in silent.stderr
