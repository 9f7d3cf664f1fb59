"""Versions with known security holes are refused before anything is imported."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bbh_dist.floors import FLOORS, check_floors

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_the_installed_versions_are_not_older() -> None:
    check_floors()


def test_pyproject_asks_for_the_same() -> None:
    dependencies = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    for name, floor in FLOORS.items():
        least = f">={'.'.join(map(str, floor))}"
        assert any(line.startswith(name) and line.endswith(least) for line in dependencies), (name, least)


@pytest.mark.parametrize(
    ("name", "version", "is_refused"),
    [
        ("ray", "2.53.1", True),
        ("ray", "2.9.0", True),
        ("ray", "2.54.0", False),
        ("mlflow", "3.9.2", True),
        ("mlflow", "2.22.0", True),
        ("torch", "2.9.1+cpu", True),
        ("torch", "2.10.0+cu128", False),
        ("torch", "unknown", True),
    ],
)
def test_an_older_version_is_one_line_and_exit_2(tmp_path: Path, name: str, version: str, is_refused: bool) -> None:
    """A package that says that it is of this version, before the installed one on the path."""
    metadata = tmp_path / "first" / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    path = os.pathsep.join([str(tmp_path / "first"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "bbh_dist.train", "--job", "none.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    floor = ".".join(map(str, FLOORS[name]))
    refusal = f"{name}: must be at least {floor}, older ones have known security holes"
    assert done.stderr.startswith(refusal) == is_refused
    assert done.stderr.startswith("none.yaml: cannot be read") != is_refused
