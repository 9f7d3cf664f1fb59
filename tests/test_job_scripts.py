"""Scripts of jobs/ with a Python that only writes down what it is asked for."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SEARCHES = Path(__file__).parents[1] / "jobs" / "digits5_searches.sh"
PYTHON = """#!/usr/bin/env bash
printf '%s ' "$@" >> asked
echo >> asked
"""


@pytest.mark.parametrize(
    ("options", "runs"), [([], "runs"), (["--storage", "else where"], "else where"), (["--storage=there"], "there")]
)
def test_searches_and_their_suite_share_a_storage(tmp_path: Path, options: list[str], runs: str) -> None:
    (tmp_path / "jobs").mkdir()
    script = shutil.copy(SEARCHES, tmp_path / "jobs")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(PYTHON)
    (tmp_path / "bin" / "python").chmod(0o755)
    for name in ("map_digits5", "digits5_tuned"):  # were cut off
        (tmp_path / runs / name).mkdir(parents=True)
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["bash", script, *options], check=True, env=environment)
    *searches, suite = (tmp_path / "asked").read_text().splitlines()
    assert len(searches) == 8
    assert [line.split()[3] for line in searches if "--resume" in line] == ["map_digits5"]
    assert "--resume" in suite
    assert f"--set settings.bbh-single={runs}/bbh-single_digits5/settings.yaml " in suite
    for line in (*searches, suite):
        assert " ".join(options) in line
