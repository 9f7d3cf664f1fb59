"""Building the kernel: private, atomic, and never a reason not to run."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bbh_dist.factored import build

LOADER = """
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location("build", sys.argv[1])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
build._SOURCE = pathlib.Path(sys.argv[2])
library = build.library()
print(library and library.answer())
"""
SWEEPS = """
import torch
from bbh_dist import factored
torch.set_num_threads(1)
weight, state = torch.ones(3, 2), {"momentum_buffer": torch.zeros(3, 2)}
for step in (1, 2):
    factored.sweep(weight, state, torch.ones(1, 3), torch.ones(1, 2), factored.SGD(0.5, step=step))
print(factored.backend(), weight.unique().tolist())
"""
needs_compiler = pytest.mark.skipif(build.library() is None, reason="the kernel needs a C compiler, none was found")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A kernel that is built in no time."""
    path = tmp_path / "kernel.c"
    path.write_text("int answer(void) { return 42; }\n")
    return path


def start(source: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOADER, build.__file__, str(source)],
        env=os.environ | {"TMPDIR": str(source.parent)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


@needs_compiler
def test_processes_that_start_at_once_all_get_the_library(source: Path) -> None:
    processes = [start(source) for _ in range(4)]
    assert [process.communicate(timeout=60) for process in processes] == [("42\n", "")] * 4
    folder = source.parent / f"bbh_dist-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 1


@needs_compiler
def test_a_compiler_that_does_not_know_this_processor_is_asked_again(source: Path) -> None:
    picky = script(source.parent / "picky", 'case "$*" in *march=native*) exit 1;; esac; exec cc "$@"')
    assert start(source, CC=picky).communicate(timeout=60) == ("42\n", "")


def test_a_compiler_that_fails_is_reported_in_one_line(source: Path) -> None:
    broken = script(source.parent / "broken", "echo first; echo no; echo room >&2; exit 1")
    out, err = start(source, CC=broken).communicate(timeout=60)
    assert out == "None\n"
    assert err.count("\n") == 1
    assert "broken failed: room; install gcc or clang, or set CC" in err
    assert list((source.parent / f"bbh_dist-{os.getuid()}").iterdir()) == []


def test_without_a_compiler_sweeps_work_after_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SWEEPS],
        env=os.environ | {"CC": "/nonexistent", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    # By hand: 1 - 0.5, then momentum 0.9 * 1 + 1 and 0.5 - 0.95.
    assert result.stdout.startswith("torch reference [-0.4")
    assert result.stderr == (
        "bbh_dist: sweeps in plain torch, several times slower: no C compiler /nonexistent; "
        "install gcc or clang, or set CC\n"
    )


@pytest.mark.parametrize("danger", ["mode", "owner", "link"])
def test_a_folder_that_others_could_write_to_is_refused(
    danger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if danger == "owner":
        someone_else = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: someone_else)
    folder = tmp_path / f"bbh_dist-{os.getuid()}"
    if danger == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777 if danger == "mode" else 0o700)
    assert build.library.__wrapped__() is None
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{folder} is not a folder that only you can use (mode 0700); remove it" in message


def test_the_kernel_is_shipped() -> None:
    specification = importlib.util.find_spec("bbh_dist.factored")
    assert specification is not None
    assert specification.origin is not None
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    assert Path(specification.origin).with_name("kernel.c").exists()
    assert '"factored/kernel.c"' in pyproject.read_text()
