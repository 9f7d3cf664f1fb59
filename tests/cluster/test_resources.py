"""What fits on a cluster, and what is refused with the arithmetic."""

import pytest

from bbh_dist.cluster.room import room
from bbh_dist.cluster.session import Resources, concurrency, needs
from bbh_dist.config import ConfigError, Parallel, WorkerRange


@pytest.mark.parametrize(
    ("parallel", "available", "runs"),
    [
        (Parallel(), Resources(2), 2),
        (Parallel(workers=2), Resources(2), 1),
        (Parallel(workers=2), Resources(5), 2),
        (Parallel(workers=2, cpus_per_worker=3), Resources(13), 2),
        (Parallel(use_gpu=True), Resources(16, 3), 3),
        (Parallel(workers=2, use_gpu=True), Resources(16, 3), 1),
        (Parallel(use_gpu=True), Resources(2, 8), 2),
        (Parallel(workers=2, cpus_per_worker=3), Resources(8, 0, (Resources(4), Resources(4))), 1),
        (Parallel(cpus_per_worker=3), Resources(9, 0, (Resources(5), Resources(4))), 2),
        (Parallel(use_gpu=True), Resources(8, 2, (Resources(4, 2), Resources(4, 0))), 2),
        (Parallel(workers=WorkerRange(min=2, max=4)), Resources(9), 2),
        (Parallel(workers=WorkerRange(min=2, max=4)), Resources(2), 1),
        (Parallel(workers=WorkerRange(max=4), use_gpu=True), Resources(16, 3), 1),
    ],
)
def test_concurrency_follows_from_need_and_cluster(parallel: Parallel, available: Resources, runs: int) -> None:
    assert concurrency(parallel, available) == runs


@pytest.mark.parametrize(
    ("parallel", "available", "arithmetic"),
    [
        (Parallel(workers=4), Resources(2), "4 workers x 1 CPUs = 4 CPUs, the cluster has 2"),
        (Parallel(workers=2, cpus_per_worker=2), Resources(3), "2 workers x 2 CPUs = 4 CPUs, the cluster has 3"),
        (
            Parallel(workers=2, cpus_per_worker=3),
            Resources(6, 0, (Resources(4), Resources(2))),
            "a run needs 2 workers of 3 CPUs, the cluster's 2 nodes hold 1 \\+ 0",
        ),
        (Parallel(workers=WorkerRange(min=3, max=9)), Resources(2), "3 workers x 1 CPUs = 3 CPUs, the cluster has 2"),
        (Parallel(workers=8, use_gpu=True), Resources(16, 0), "8 workers x 1 GPU = 8 GPUs, the cluster has 0"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_arithmetic(
    parallel: Parallel, available: Resources, arithmetic: str
) -> None:
    with pytest.raises(ConfigError, match=arithmetic):
        concurrency(parallel, available)


def test_the_driver_of_several_workers_needs_no_cpu() -> None:
    assert needs(Parallel(workers=2), 2) == Resources(2, 0)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([{"CPU": 3}, {"CPU": 1}, {"memory": 9}], 1),  # a worker has its two cores on one node
        ([{"CPU": 4}, {"CPU": 5}], 4),
        ([{"CPU": 1}, {"CPU": 1.5}, {"CPU": 1}], 0),
        ([{"CPU": 3.5}, {}], 1),
        ([], 0),
    ],
)
def test_there_is_room_for_whole_workers(nodes: list[dict[str, float]], expected: int) -> None:
    assert room({"CPU": 2}, nodes) == expected


def test_room_needs_all_that_a_worker_needs() -> None:
    assert room({"CPU": 1, "GPU": 1}, [{"CPU": 8, "GPU": 2}, {"CPU": 8}, {"GPU": 1}]) == 2
