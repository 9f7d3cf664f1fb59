"""Versions with known security holes are refused before a command does anything."""

import tomllib
from pathlib import Path

import pytest
from front_door import exit_code

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
def test_an_older_version_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    version: str,
    is_refused: bool,
) -> None:
    """A package that says that it is of this version, before the installed one on the path."""
    metadata = tmp_path / f"{name}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    assert exit_code("train", "--job", "none.yaml", complete=False) == 2
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1
    floor = ".".join(map(str, FLOORS[name]))
    refusal = f"{name}: must be at least {floor}, older ones have known security holes"
    assert errors.startswith(refusal) == is_refused
    assert errors.startswith("none.yaml: cannot be read") != is_refused
