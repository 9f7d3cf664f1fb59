"""Workers whose steps are compiled take the steps of those whose are not, collective calls and all."""

import json
from pathlib import Path

import pytest
from compiled_workers import NAMES
from forked import run_script


@pytest.mark.cluster
def test_compiled_workers_take_the_same_steps(tmp_path: Path) -> None:
    run_script(Path(__file__).with_name("compiled_workers.py"), tmp_path)
    for size in (1, 2):
        found = json.loads((tmp_path / f"{size}.json").read_text())
        for name in NAMES:
            plain, compiled = found[f"{name}-False"], found[f"{name}-True"]
            assert not compiled["fell back"]
            assert compiled["losses"] == pytest.approx(plain["losses"], rel=1e-10)
            assert compiled["parameters"] == pytest.approx(plain["parameters"], rel=1e-9)
