"""Real gloo workers equal one process on the same global batch; nothing is counted twice.

Batches of 11 do not divide by the workers and the last one has a single example, so that one share is empty.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from small_runs import METHODS, experiment, small_task
from torch.testing import assert_close

from bbh_dist.training import Trainer
from bbh_dist.training.checkpoints import newest_checkpoint

# Torchmetrics counts in single precision.
COARSE = ("outlier_auroc", "outlier_fpr95")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers wrote."""
    path = tmp_path_factory.mktemp("workers")
    script = Path(__file__).parent / "one_worker.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), "2", str(path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)
    return path


@pytest.fixture(scope="module")
def alone() -> dict[str, Trainer]:
    trainers = {name: Trainer(experiment(name, optimizer={"gradient_clip": 1.0}), small_task()) for name in METHODS}
    for trainer in trainers.values():
        while not trainer.done:
            trainer.run_epoch()
    return trainers


def check_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        if not name.startswith("time/"):
            tolerance = 1e-6 if name.endswith(COARSE) else 1e-9
            assert found[name] == pytest.approx(expected[name], rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("method", METHODS)
class TestTwoWorkersEqualOne:
    def test_losses_and_validation(self, folder: Path, alone: dict[str, Trainer], method: str) -> None:
        history, _ = json.loads((folder / f"{method}-0.json").read_text())
        assert len(history) == 3
        for found, expected in zip(history, alone[method].history, strict=True):
            check_close(found, expected)

    def test_test_measures_and_curves(self, folder: Path, alone: dict[str, Trainer], method: str) -> None:
        _, (measures, curves) = json.loads((folder / f"{method}-0.json").read_text())
        expected, expected_curves = alone[method].test()
        check_close(measures, expected)
        assert curves["bin_count"] == expected_curves["bin_count"]

    def test_weights(self, folder: Path, alone: dict[str, Trainer], method: str) -> None:
        found = load_file(folder / f"{method}-0.safetensors")
        for name, expected in alone[method].method.state_dict().items():
            assert_close(found[name], expected, rtol=1e-9, atol=1e-9)

    def test_workers_agree_bit_for_bit(self, folder: Path, method: str) -> None:
        first, second = (load_file(folder / f"{method}-{rank}.safetensors") for rank in range(2))
        for name, value in first.items():
            assert_close(second[name], value, rtol=0, atol=0)
        measures = [json.loads((folder / f"{method}-{rank}.json").read_text())[1] for rank in range(2)]
        assert measures[0] == measures[1]

    def test_one_checkpoint_is_written_that_a_lone_worker_loads(self, folder: Path, method: str) -> None:
        checkpoints = folder / f"{method}-checkpoints"
        assert sorted(path.name for path in checkpoints.iterdir()) == ["epoch-000002", "epoch-000003"]
        assert newest_checkpoint(checkpoints) is not None
        trainer = Trainer(experiment(method, optimizer={"gradient_clip": 1.0}), small_task())
        assert trainer.resume(checkpoints)
        check_close(trainer.test()[0], json.loads((folder / f"{method}-0.json").read_text())[1][0])


def test_all_workers_stop_where_one_share_is_poisoned(folder: Path) -> None:
    reasons = [(folder / f"poisoned-{rank}.txt").read_text() for rank in range(2)]
    assert reasons[0] == reasons[1]
    assert reasons[0].startswith("loss is not finite by step 6 of epoch 1")
