"""Two real workers that share the statistics of a batch train as one does, and send what is counted.

In float64; sums in another order differ by 1e-16 relative, which 31 normalisations and three steps multiply: measured
1e-13, tolerance 1e-9.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from batch_workers import CASES, experiment, trained
from forked import run_script

from bbh_dist.costs import step_costs
from bbh_dist.training import Workers


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """By worker and case."""
    folder = tmp_path_factory.mktemp("batches")
    run_script(Path(__file__).with_name("batch_workers.py"), folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_workers_train_and_predict_as_one(found: list[dict[str, dict[str, Any]]], case: str) -> None:
    alone = trained(case, Workers())
    for worker in found:
        assert worker[case]["metrics"] == pytest.approx(alone["metrics"], rel=1e-9)
        for name in ("parameters", "norm"):
            assert worker[case][name] == pytest.approx(alone[name], rel=1e-9)


@pytest.mark.parametrize("rank", [0, 1])
def test_they_send_what_is_counted(found: list[dict[str, dict[str, Any]]], rank: int) -> None:
    counted = step_costs(experiment("map", workers=2), (2, 16, 16), 2, 2, rank=rank).wire
    assert counted == found[rank]["map"]["sent"]
    assert counted["statistics"] > 0


def test_workers_with_whole_batches_share_no_statistics(found: list[dict[str, dict[str, Any]]]) -> None:
    assert "statistics" not in found[0]["samples"]["sent"]
