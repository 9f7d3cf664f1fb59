"""Bounds and predictions on machines whose numbers are known."""

from pathlib import Path

import pytest
import torch
from small_costs import CLASSES, INPUT_SHAPE, experiment

from bbh_dist.config import ConfigError
from bbh_dist.costs import Machine, StepCosts, lower_bound_seconds, measure_machine, predicted_seconds, step_costs
from bbh_dist.costs.devices import check_device, device_names, sheet_machine
from bbh_dist.costs.fitting import smallest_fit


@pytest.fixture(scope="module")
def costs() -> StepCosts:
    return step_costs(experiment("layerwise", 2), INPUT_SHAPE, CLASSES, 2)


def machine(bandwidth: float = 1e30, flops: float = 1e30, operation: float = 0.0, link: float = 1e30) -> Machine:
    return Machine("test", bandwidth, flops, ((1, flops),), operation, link_bandwidth=link)


def test_lower_bound_is_the_slower_of_memory_and_arithmetic(costs: StepCosts) -> None:
    assert lower_bound_seconds(costs, machine(bandwidth=7.0)) == pytest.approx(costs.bytes_moved / 7)
    assert lower_bound_seconds(costs, machine(flops=7.0)) == pytest.approx(costs.flops / 7)


def test_prediction_adds_operations_overhead_and_wire(costs: StepCosts) -> None:
    calls = sum(operation.calls for operation in costs.operations)
    assert predicted_seconds(costs, machine(operation=1.0)) == pytest.approx(calls)
    assert predicted_seconds(costs, machine(flops=7.0)) == pytest.approx(costs.flops / 7)
    assert predicted_seconds(costs, machine(link=7.0)) == pytest.approx(sum(costs.wire.values()) / 7)


def test_no_prediction_is_below_the_lower_bound_of_every_device() -> None:
    costs = step_costs(experiment("layerwise"), INPUT_SHAPE, CLASSES, 1)
    for name in device_names()[1:]:
        assert predicted_seconds(costs, sheet_machine(name)) > lower_bound_seconds(costs, sheet_machine(name)) > 0


def test_rates_between_measured_sizes() -> None:
    matmuls, rates = ((10, 3.0), (1000, 9.0)), ((10, 5.0), (1000, 7.0))
    measured = Machine("test", 1.0, 1.0, ((1, 10.0), (100, 30.0)), 0.0, matmul_rates=matmuls, byte_rates=rates)
    assert measured.flops_per_second("convolution", 10, 1) == pytest.approx(20)
    assert [measured.flops_per_second("matmul", 0, size) for size in (1, 100, 9999)] == pytest.approx([3, 6, 9])
    assert [measured.bytes_per_second(size) for size in (0, 10, 100, 1001)] == pytest.approx([5, 5, 6, 1])


def test_smallest_fit() -> None:
    memory = {workers: step_costs(experiment("layerwise"), INPUT_SHAPE, CLASSES, workers) for workers in (1, 2, 4, 8)}
    for workers in (1, 2, 4):
        enough = Machine("test", 1.0, 1.0, ((1, 1.0),), 0.0, memory_bytes=memory[workers].peak_bytes)
        fit = smallest_fit(experiment("layerwise"), memory.__getitem__, enough)
        assert fit is not None
        assert (fit.workers, fit.peak_bytes) == (workers, memory[workers].peak_bytes)
    nothing = Machine("test", 1.0, 1.0, ((1, 1.0),), 0.0, memory_bytes=10)
    assert smallest_fit(experiment("layerwise"), memory.__getitem__, nothing) is None


def test_unknown_devices_are_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean h200"):
        check_device("h20")


def test_measuring_gives_plausible_numbers_and_leaves_random_numbers_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bbh_dist.costs.measurements._PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("bbh_dist.costs.measurements._FEWEST_REPEATS", 1)
    monkeypatch.setattr("bbh_dist.costs.measurements._cache_sizes", list)
    monkeypatch.setattr("bbh_dist.costs.measurements._BEYOND_CACHE_BYTES", 1 << 24)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    measured = measure_machine(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert 1e7 < measured.bandwidth < 1e13
    assert 1e7 < measured.matmul_flops < 1e14
    assert all(1e6 < rate < 1e14 for _, rate in (*measured.matmul_rates, *measured.byte_rates))
    assert 1e-8 < measured.operation_seconds < 1e-1
    if Path("/proc/self/statm").exists():
        assert 5e7 < measured.overhead_bytes < measured.memory_bytes
