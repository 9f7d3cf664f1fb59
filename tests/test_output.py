"""`--json`: earlier results are replaced, nothing else is; pipes and the terminal are written as they are."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bbh_dist.config import ConfigError
from bbh_dist.output import check_json, write_json

SPEED = sorted((Path(__file__).parents[1] / "docs").glob("speed-*.json"))
RESULTS: dict[str, dict[str, Any]] = {
    "tune": {"study": "x", "parent_run_id": "1", "tracking_uri": "u", "trials": [], "best": [], "seconds": 1},
    "train": {"run_id": "1", "tracking_uri": "u", "metrics": {}, "seconds": 1, "step_ms": 1},
    "benchmark": {"suite": "x", "quick": False, "rows": [], "seconds": 1},
    "speed": {"command": "step", "machine": {}, "settings": {}, "rows": []},
    "plan": {"parameters": 1, "per_worker": {}, "wire": {}, "step_seconds": 1, "device": "cpu"},
}
OTHERS: dict[str, Any] = {
    "nothing": {},
    "a compiler's settings": {"compilerOptions": {"strict": True}},
    "a run's record": {"tracking_uri": "u", "experiment": "x", "tracking_key": "k", "result": RESULTS["train"]},
    "a suite's record": {"tracking_uri": "u", "experiment": "x", "tracking_key": "k", "rows": {}, "runs": {}},
    "a list": [RESULTS["train"]],
}


@pytest.mark.parametrize("command", RESULTS)
def test_earlier_results_are_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str], command: str) -> None:
    path = tmp_path / "out.json"
    path.write_text(json.dumps(RESULTS[command]))
    check_json(str(path))
    write_json(str(path), {"new": 1})
    assert json.loads(path.read_text()) == {"new": 1}
    assert capfd.readouterr().err == f"{path}: the results that stood there are replaced\n"


@pytest.mark.parametrize("path", SPEED, ids=[path.stem for path in SPEED])
def test_published_results_are_results(path: Path) -> None:
    check_json(str(path))


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_ours_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out.json"
    path.write_text(json.dumps(OTHERS[kind]))
    with pytest.raises(ConfigError, match="stands already and holds no results"):
        check_json(str(path))


def test_a_pipe_is_written_as_it_is() -> None:
    """What a shell gives for `--json >(jq .)`, and /dev/stdout before `| cat`: a link to no path."""
    ours, theirs = os.pipe()
    check_json(f"/dev/fd/{theirs}")
    write_json(f"/dev/fd/{theirs}", RESULTS["train"])
    os.close(theirs)
    with open(ours, "rb") as read:
        assert json.load(read) == RESULTS["train"]


def test_a_pipe_that_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "pipe")
    with pytest.raises(ConfigError, match="--json: cannot be written"):
        check_json(str(tmp_path / "pipe"))
