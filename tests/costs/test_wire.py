"""What is counted without sending is what two real workers have sent."""

import json
from pathlib import Path

import pytest
from forked import run_script
from small_costs import CASES, CLASSES, INPUT_SHAPE, experiment

from bbh_dist.costs import step_costs


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, int]]]:
    """By worker and case."""
    folder = tmp_path_factory.mktemp("sent")
    run_script(Path(__file__).with_name("one_step.py"), folder)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_two_workers_send_what_is_counted(sent: list[dict[str, dict[str, int]]], case: str, rank: int) -> None:
    counted = step_costs(experiment(case, workers=2), INPUT_SHAPE, CLASSES, 2, rank=rank).wire
    assert counted == sent[rank][case]
    assert sum(counted.values()) > 0


@pytest.mark.parametrize("case", CASES)
def test_a_lone_worker_sends_nothing(case: str) -> None:
    assert step_costs(experiment(case), INPUT_SHAPE, CLASSES, 1).wire == {}
