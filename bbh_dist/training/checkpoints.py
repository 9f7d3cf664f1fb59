"""Checkpoints: tensors as safetensors, everything else as JSON, whole or absent.

A checkpoint is a folder `epoch-000012` with `tensors.safetensors` and `state.json`, which holds one sha256 over both.
It is written under a temporary name, flushed to disk, and renamed. Nothing in it needs pickle.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

_NAME = re.compile(r"epoch-(\d{6,})")
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_KEPT = 2


class CheckpointError(Exception):
    """A checkpoint that is not whole."""


def save_checkpoint(folder: Path, epoch: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write a checkpoint atomically, keep the newest two, and return its path."""
    from safetensors.torch import save_file  # imported here: the core needs torch, numpy, pydantic and YAML only

    final = folder / f"epoch-{epoch:06d}"
    temporary = folder / f".{final.name}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / _TENSORS)
    content = {"sha256": _sha256(temporary / _TENSORS, state), **state}
    (temporary / _STATE).write_text(json.dumps(content), encoding="utf-8")
    for path in (temporary / _TENSORS, temporary / _STATE, temporary):
        _flush(path)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _flush(folder)
    for old in _checkpoints(folder)[_KEPT:]:
        shutil.rmtree(old)
    for orphan in folder.glob(".epoch-*"):
        shutil.rmtree(orphan, ignore_errors=True)
    return final


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and state of the newest whole checkpoint; a damaged one is named on stderr and passed over."""
    for path in _checkpoints(folder):
        try:
            return _read(path)
        except CheckpointError as error:
            print(f"{path}: damaged checkpoint passed over: {error}", file=sys.stderr)
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = json.loads((path / _STATE).read_text(encoding="utf-8"))
        expected = state.pop("sha256")
        if _sha256(path / _TENSORS, state) != expected:
            raise CheckpointError(f"{_TENSORS} and {_STATE} do not have the sha256 that {_STATE} states")
        return load_file(path / _TENSORS), state
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{type(error).__name__}: {error}") from error


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, the newest first."""
    found = [path for path in folder.glob("epoch-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("epoch-")), reverse=True)


def _sha256(path: Path, state: dict[str, Any]) -> str:
    """Of a file's bytes followed by the state, which JSON gives back as it was."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(state).encode())
    return digest.hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
