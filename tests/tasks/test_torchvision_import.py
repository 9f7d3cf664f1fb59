"""The import of torchvision beside another build of torch."""

import importlib
import subprocess
import sys
from typing import Any

import pytest
import torch

from bbh_dist.tasks.torchvision_import import import_torchvision


@pytest.fixture
def defined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Operators that were declared."""
    names: list[str] = []
    monkeypatch.setattr(torch.library, "define", lambda name, schema: names.append(name))
    return names


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def import_module(name: str) -> Any:
        raise error

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_a_fresh_process_can_use_it_and_torchmetrics() -> None:
    code = (
        "from bbh_dist.tasks.torchvision_import import import_torchvision; import_torchvision(); import_torchvision();"
        "from torchvision.datasets import MNIST; import torchmetrics.functional.classification"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_failure_is_passed_on(monkeypatch: pytest.MonkeyPatch, defined: list[str]) -> None:
    failing(monkeypatch, RuntimeError("operator torchvision::other does not exist"))
    with pytest.raises(RuntimeError, match="other"):
        import_torchvision()
    assert defined == []


def test_its_absence_is_passed_on(monkeypatch: pytest.MonkeyPatch, defined: list[str]) -> None:
    failing(monkeypatch, ModuleNotFoundError("No module named 'torchvision'"))
    with pytest.raises(ModuleNotFoundError):
        import_torchvision()
    assert defined == []


def test_a_working_import_declares_nothing(monkeypatch: pytest.MonkeyPatch, defined: list[str]) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: None)
    import_torchvision()
    assert defined == []
