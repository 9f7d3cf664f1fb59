"""Real gloo workers: what they exchange arrives, is counted, and is differentiated."""

from pathlib import Path

import pytest
from forked import run_script
from group_workers import GROUPS

OUTCOMES = [(part.__name__, size, rank) for size, parts in GROUPS for part in parts for rank in range(size)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all groups of workers wrote."""
    path = tmp_path_factory.mktemp("groups")
    run_script(Path(__file__).with_name("group_workers.py"), path)
    return path


@pytest.mark.parametrize(("part", "size", "rank"), OUTCOMES)
def test_a_worker(folder: Path, part: str, size: int, rank: int) -> None:
    path = folder / f"{part}-{size}-{rank}.txt"
    assert path.exists(), "another worker failed"
    assert path.read_text() == "ok"
