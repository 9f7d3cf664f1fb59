"""What is timed on a GPU, as far as that can be seen without one."""

import math

import pytest
import torch

from bbh_dist.costs.gpu import measured_machine
from bbh_dist.speed import experiments
from bbh_dist.speed.device import STEPS_BEFORE_WAITING, Device
from bbh_dist.speed.worker import Sharded
from bbh_dist.training import Trainer


def test_the_host_waits_for_a_gpu_once_after_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: seen.append("waited"))
    each = Device(1, gpu=True).milliseconds(lambda: seen.append("step"))
    assert seen == ["step"] * STEPS_BEFORE_WAITING + ["waited"]
    assert 0 < each < 1000


def test_on_cpu_every_step_is_timed() -> None:
    seen: list[str] = []
    assert Device(1).milliseconds(lambda: seen.append("step")) > 0
    assert seen == ["step"]


def test_rates_are_work_over_the_time_until_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that stands still but for the waiting, a second each time; that is a tenth for each of ten calls."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def wait() -> None:
        now[0] += 1

    machine = measured_machine("name", torch.device("cpu"), wait, memory_bytes=7, numbers=1000, side=10)
    assert (machine.name, machine.memory_bytes) == ("name", 7)
    assert machine.bandwidth == pytest.approx(3 * 4 * 1000 * 10)
    assert machine.matmul_flops == pytest.approx(2 * 10**3 * 10)
    assert machine.operation_seconds == pytest.approx(0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu() -> None:
    device = Device(1, gpu=True)
    device.check()
    assert device.name == torch.cuda.get_device_name()
    experiment = experiments.experiment("bbh-layerwise", network="mlp:3", hidden="4", kl_samples=2, gpu=True)
    run = Sharded(Trainer(experiment, experiments.task(), device=device.torch))
    assert math.isfinite(device.milliseconds(run.step))
    assert device.peak_memory() > 0
    device.free()
    assert device.rates().bandwidth > 1e10
