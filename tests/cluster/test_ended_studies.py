"""How studies and their trials end: failed trials, interrupts, and what is left on a cluster that stands."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_study import Study, check_end, family, finish, runs, wait

pytestmark = pytest.mark.cluster

FAILING = """
base:
  task: digits5
  network: mlp:8
  method: {name: bbh, generator: {kind: layerwise, hidden: [8]}}
  optimizer: {name: sgd, lr: 0.01}
  epochs: 2
search:
  method.generator.hidden: {choice: [[8], [1000000, 1000000]]}      # the second takes 4 terabytes
  method.prior_stddev: {choice: [1.0, 1.0e-6]}                      # the second diverges
objectives: [{metric: val/nll, direction: minimize}]
sampler: {name: random, seed: 5}
trials: 5
final: {top: 1, seeds: [0]}
"""
_MOST_MEMORY = 64 << 30


def no_more_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def test_a_diverged_or_out_of_memory_trial_is_one_failed_trial_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(FAILING)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    command = [sys.executable, "-m", "bbh_dist.tune", "--space", "space.yaml", "--tracking-uri", store]
    done = subprocess.run(
        [*command, "--json", "out.json"],
        cwd=tmp_path,
        preexec_fn=no_more_memory,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = json.loads((tmp_path / "out.json").read_text())["trials"]
    by_name = {run.info.run_name: run for run in runs(store)[1]}
    kinds = set()
    for trial in trials:
        is_huge, diverges = (
            len(trial["params"]["method.generator.hidden"]) > 1,
            trial["params"]["method.prior_stddev"] < 1,
        )
        run = by_name[f"trial-{trial['number']}"]
        assert (trial["state"] == "FAIL") == (is_huge or diverges)
        assert run.info.status == ("FAILED" if is_huge or diverges else "FINISHED")
        if is_huge:
            assert "allocate memory" in run.data.tags["reason"]
        elif diverges:
            assert "not finite" in run.data.tags["reason"]
        kinds.add((is_huge, diverges))
    assert {(False, False), (True, False), (False, True)} <= kinds


@pytest.fixture
def study(tmp_path: Path) -> Iterator[Study]:
    """A study of two long trials, which runs."""
    with Study(tmp_path, trials=2, epochs=3000) as study:
        study.start()
        wait(lambda: bool(study.running() and study.workers()), "no trial runs")
        yield study


@pytest.mark.parametrize(
    ("number", "all_processes"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_an_interrupt_ends_cleanly(study: Study, number: signal.Signals, all_processes: bool) -> None:
    study.interrupt(number, all_processes=all_processes)  # 130, no process, no temporary file, nothing left RUNNING
    assert {run.info.status for run in runs(study.store)[1]} == {"KILLED"}
    assert {trial.state.name for trial in study.trials()} == {"WAITING"}


def test_a_second_driver_is_refused_and_ctrl_c_twice_ends_the_first_now(study: Study) -> None:
    command = [sys.executable, "-m", "bbh_dist.tune", *study.arguments, "--resume"]
    second = subprocess.run(command, cwd=study.folder, capture_output=True, text=True, timeout=100)
    assert second.returncode == 2
    assert "another process works on it" in second.stderr
    assert second.stderr.count("\n") == 1
    process = study.running()
    os.killpg(process.pid, signal.SIGINT)
    wait(lambda: "once more ends at once" in study.last_output(), "the first was not taken note of")
    os.killpg(process.pid, signal.SIGINT)
    assert study.has_ended() == 130


ON_THE_CLUSTER = """
import json, ray
from ray.util import placement_group_table
ray.init(address="{address}", log_to_driver=False, logging_level="ERROR")
groups = [group["state"] for group in placement_group_table().values()]
free = ray.available_resources().get("CPU", 0) == ray.cluster_resources()["CPU"]
print(json.dumps([[state for state in groups if state != "REMOVED"], free]))
"""


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray cluster that stands, of two CPUs, with a token."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    port = 20_000 + os.getpid() % 10_000
    options = ["--head", "--block", f"--port={port}", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    options += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir=/tmp/bbh-standing-{port}"]
    with subprocess.Popen(["ray", "start", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as head:
        wait(lambda: left_on(f"127.0.0.1:{port}") == [[], True], "no cluster")
        yield f"127.0.0.1:{port}"
        started = family(head.pid)
        head.kill()  # asked to end it takes half a minute
    for pid, _ in started:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


def left_on(address: str) -> list | None:
    """Placement groups that stand, and whether all CPUs are free; None where the cluster does not answer."""
    code = ON_THE_CLUSTER.replace("{address}", address)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_leaves_nothing_on_a_cluster_that_stands(
    tmp_path: Path, address: str, number: signal.Signals
) -> None:
    """Four trials of two workers each, on two CPUs: one at a time, without a deadlock."""
    with Study(tmp_path, trials=4, epochs=6) as study:
        study.arguments += ["--address", address, "--workers", "2"]
        study.arguments += ["--set", "precision=float64"]  # a rate near the largest makes 0.002 of float32's rounding
        study.start()
        wait(lambda: bool(study.running() and list(study.run_folder.glob("workers/*/reports.jsonl"))), "no trial runs")
        if number == signal.SIGKILL:
            study.kill_driver()
        else:
            study.interrupt(number)
        deadline = time.monotonic() + 100
        while (left := left_on(address)) != [[], True]:
            assert time.monotonic() < deadline, left
        finish(study)
        check_end(study)
        assert left_on(address) == [[], True]
