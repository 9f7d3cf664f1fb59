"""Each command in its smallest form writes JSON as the contract has it, and a figure; mistakes are one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bbh_dist.command_line import RunFailed, run
from bbh_dist.config import BbbMethod, DropoutMethod
from bbh_dist.config.methods import METHODS
from bbh_dist.costs import Machine
from bbh_dist.speed import bounds, device, experiments, options, search, shard, step, study
from bbh_dist.speed.__main__ import main, parser
from bbh_dist.speed.device import Device
from bbh_dist.speed.progress import Progress

SMALL = ("--hidden", "4")
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # `keep_to` and `run` set these for a whole process, which here is the test run's.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    monkeypatch.setattr("signal.signal", lambda *arguments: None)


def measured(command: str, *arguments: str) -> dict[str, Any]:
    main([command, *arguments, "--json", "out.json"])
    result = json.loads(Path("out.json").read_text())
    assert result["command"] == command
    assert {"cpu", "cores", "device", "versions"} <= set(result["machine"])
    assert "torch" in result["machine"]["versions"]
    for row in result["rows"]:
        assert 0 < row["min"] <= row["median"] <= row["max"]
        assert row["ratio"] > 0
    assert Path(f"runs/speed/speed-{command}.png").read_bytes().startswith(b"\x89PNG")
    return result


STEP = (*SMALL, "--threads", "1", "--repeats", "1", "--batch-size", "10", "--likelihood-samples", "1")
MACHINE = Machine("cpu", bandwidth=1e10, matmul_flops=1e11, conv_flops=((1, 1e11),), operation_seconds=1e-6)


def test_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_machine", lambda device: MACHINE)
    monkeypatch.setattr(step, "_memory", lambda experiment: {"peak_memory": 2, "memory_before": 1})
    check_step(measured("step", *STEP, "--network", "mlp:3"))


@pytest.mark.cluster
def test_step_with_memory_of_processes_and_bounds_of_this_machine() -> None:
    rows = check_step(measured("step", *STEP, "--network", "mlp:3", "--plain", "--divergence", "knn"))
    assert "bbh-layerwise-plain" in rows
    assert all(row["memory_before"] > 50e6 for row in rows.values())


@pytest.fixture
def _a_gpu_that_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"is_available": True, "get_device_name": "some GPU", "synchronize": None, "empty_cache": None}
    for name, value in gpu.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for module in (device, step):
        monkeypatch.setattr(module, "STEPS_BEFORE_WAITING", 2)
    monkeypatch.setattr(Device, "torch", torch.device("cpu"))


@pytest.mark.usefixtures("_a_gpu_that_is_a_cpu")
def test_step_on_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(bounds, "_machine", lambda place: seen.append(place) or MACHINE)
    monkeypatch.setattr(
        step, "_memory", lambda run: seen.append(run.parallel) or {"peak_memory": 2, "memory_before": 0}
    )
    result = measured("step", *STEP, "--network", "lenet", "--methods", "bbb", "--gpu")
    assert result["machine"]["device"] == "some GPU"
    assert [row["name"] for row in result["rows"]] == ["map", "bbb"]
    assert {run.use_gpu for run in seen if not isinstance(run, Device)} == {True}
    assert {place for place in seen if isinstance(place, Device)} == {Device(1, gpu=True)}
    shown = "".join(capsys.readouterr().out.split())
    assert "someGPU;" in shown
    assert "3times2steps" in shown
    assert "tensors,thoseofthedatatoo,havetakenontheGPU" in shown


def check_step(result: dict[str, Any]) -> dict[str, Any]:
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows)[: len(options.CONTESTANTS)] == list(options.CONTESTANTS)
    assert rows["map"]["ratio"] == 1
    rmsprop = [name for name, row in rows.items() if row["optimizer"] != "adam"]
    assert rmsprop == [name for name in rows if name in ("bbh-layerwise", "bbh-layerwise-plain")]
    for row in rows.values():
        assert row["runs"] >= 3
        assert row["bound_ratio"] == pytest.approx(row["median"] / row["bound"])
        assert row["peak_memory"] > row["memory_before"]
    return rows


def test_a_row_is_a_methods_experiment_with_its_defaults_and_the_samples_that_it_may_have() -> None:
    chosen = {name: experiments.experiment(name, likelihood_samples=3, kl_samples=4).method for name in METHODS}
    assert {name: method.name for name, method in chosen.items()} == {name: name for name in METHODS}
    assert chosen["dropout"] == DropoutMethod(name="dropout")
    assert chosen["bbb"] == BbbMethod(name="bbb", likelihood_samples=3)


def test_the_methods_of_a_step_are_chosen_in_the_order_of_all() -> None:
    given = parser().parse_args(["step", "--methods", "bbb,dropout"])
    options.check(given)
    assert given.methods == ["map", "dropout", "bbb"]


def test_predict() -> None:
    result = measured("predict", *SMALL, "--threads", "1", "--repeats", "1", "--examples", "20", "--samples", "5")
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["bare network", "map", "bbh-single", "bbh-layerwise"]
    assert rows["bare network"]["share"] == 1
    assert rows["bbh-layerwise"]["rate"] == pytest.approx(1000 * 20 * 5 / rows["bbh-layerwise"]["median"])


def test_bfloat16_is_for_sharded_workers_alone() -> None:
    given = parser().parse_args(["shard", *SMALL, "--bfloat16"])
    options.check(given)
    stored = {}
    for name, (_, _, experiment) in shard.contestants(given, "strong").items():
        optimizer, generator = experiment.optimizer, experiment.method.generator
        stored[name] = (generator.head_precision, optimizer.second_moment, optimizer.factored)
    narrow = ("bfloat16", "bfloat16", True)
    assert stored == {"sharded-1": narrow, "sharded-2": narrow, "ddp-2": ("float32", "float32", False)}


@pytest.mark.cluster
def test_shard() -> None:
    result = measured("shard", *SMALL, "--repeats", "1", "--batch-size", "10", "--network", "mlp:3")
    rows = {(row["name"], row["scaling"]): row for row in result["rows"]}
    assert set(rows) == {(name, kind) for name in ("sharded-1", "sharded-2", "ddp-2") for kind in ("strong", "weak")}
    weights = 784 * 3 + 3 + 3 * 10 + 10
    sharded = rows["sharded-2", "strong"]
    # One likelihood sample: each worker sends its half of the weights, and its half of the gradients comes back.
    assert sharded["wire"]["weights"] == pytest.approx(4 * weights / 2, rel=0.1)
    assert rows["ddp-2", "strong"]["wire"]["gradients"] > 4 * 5 * weights
    assert rows["sharded-1", "strong"]["wire_bytes"] == 0


@pytest.mark.cluster
def test_search() -> None:
    result = measured("search", "--trials", "2", "--pair-trials", "0", "--epochs", "2")
    (row,) = result["rows"]
    assert (row["name"], row["trials"]) == ("study-1", 2)
    assert row["overhead"] == pytest.approx(row["median"] - row["loop"])


def test_what_a_search_adds_is_without_first_trials_once_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = study.Trainings(9000.0, [5000.0, 4000.0, 1500.0, 1300.0], [1100.0, 1300.0, 1000.0, 800.0, 1000.0])
    monkeypatch.setattr(search, "run_both", lambda *arguments: found)
    monkeypatch.setattr(search, "concurrency", lambda *arguments: 2)
    row = search._row(parser().parse_args(["search"]), 1, 4, Progress())
    assert (row["median"], row["loop"], row["overhead"]) == (4500, 1040, 3460)
    assert row["steady_overhead"] == pytest.approx(1400 - 2800 / 3)


@pytest.mark.cluster
def test_a_study_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(study._SPACE["base"], "network", "lenet")  # takes no images of 8 x 8
    with pytest.raises(RunFailed, match=r"the study ended with exit code 2: .*lenet"):
        study.run_both(2, 1, 2, 1, Progress())


@pytest.mark.cluster
def test_interrupt_ends_all_workers() -> None:
    command = [sys.executable, "-m", "bbh_dist.speed", "shard", *SMALL, "--repeats", "10000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(_children(process.pid)) < 5:
            time.sleep(0.2)
        time.sleep(5)
        children = _children(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, len(children)) == (130, 5), errors
    assert "Traceback" not in errors
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines()[1:] if int(line.split()[1]) == pid]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ("", "step|shard|predict|search"),
        ("stop", "invalid choice: 'stop'"),
        ("step --repeats 0", "--repeats: must be from 1 to 10000, got 0"),
        ("step --likelihood-samples 1,x", "--likelihood-samples: must be numbers"),
        ("step --hidden 3,,4", "--hidden: must be numbers"),
        ("predict --hidden 123456789012", "--hidden: must be numbers from 1 to 65536"),
        ("step --network lenot", "lenot"),
        ("step --methods bbb,bab", "--methods: must be of map, dropout, bbb"),
        ("step --kl-samples 1", "--kl-samples: must be from 2"),
        pytest.param("step --gpu", "--gpu: torch finds no CUDA GPU on this machine", marks=WITHOUT_GPU),
        ("shard --workers 2", "--workers: must begin with 1"),
        ("shard --bfloat16 --generator single", "--bfloat16: is for the layer-wise generator"),
        ("predict --json no/where.json", "--json: cannot be written"),
        ("search --trials many", "--trials"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(capfd: pytest.CaptureFixture[str], arguments: str, fragment: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(main, arguments.split())
    errors = capfd.readouterr().err
    assert (caught.value.code, errors.count("\n")) == (2, 1), errors
    assert fragment in errors


@pytest.mark.parametrize("command", ["step", "shard", "predict", "search"])
def test_help_has_an_example_that_parses(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args([command, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert f"runs/speed/speed-{command}.png" in "".join(shown.split())
    example = shown.split("example:\n")[1].strip()
    given = parser().parse_args(example.split()[3:])
    options.check(given)
    assert given.command == command


def test_help_needs_no_torch() -> None:
    script = "import sys; from bbh_dist.speed.__main__ import parser; parser(); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"
