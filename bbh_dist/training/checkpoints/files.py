"""The files of a checkpoint: written under a temporary name, flushed, named with their sha256, renamed; and checked."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_NAME = re.compile(r"epoch-(\d{6,})")
_STATE, _SUFFIX = "state.json", ".safetensors"
_KEPT = 2


class CheckpointError(Exception):
    """A checkpoint that is not whole, or that could not be written or read."""


def described(error: BaseException) -> str:
    """An error in words, with its type unless it is one of a checkpoint."""
    return str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"


def folder_of(folder: Path, epoch: int) -> Path:
    """The folder of an epoch's checkpoint."""
    return folder / f"epoch-{epoch:06d}"


def epoch_of(path: Path) -> int | None:
    """The epoch of a checkpoint's folder; none for another folder."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def temporary_of(final: Path) -> Path:
    """Where a checkpoint is written, the same on every worker."""
    return final.with_name(f".{final.name}")


def checkpoint_folders(folder: Path) -> list[Path]:
    """Folders of checkpoints, the newest first."""
    epochs = {path: epoch_of(path) for path in folder.glob("epoch-*")}
    found = {path: epoch for path, epoch in epochs.items() if epoch is not None}
    return sorted(found, key=lambda path: found[path], reverse=True)


def shard_name(rank: int) -> str:
    """Name of the file that a worker writes."""
    return f"shard-{rank:05d}{_SUFFIX}"


def begin(temporary: Path) -> None:
    """Make the temporary folder, after what killed saves have left is swept."""
    for orphan in temporary.parent.glob(".epoch-*"):
        shutil.rmtree(orphan, ignore_errors=True)
    temporary.mkdir(parents=True)


def sealed(path: Path) -> str:
    """A file's sha256, once the file is on disk."""
    digest = _sha256(path)  # the system writes the file out meanwhile
    flush(path)
    return digest


def commit(temporary: Path, final: Path, sums: dict[str, str], state: dict[str, Any]) -> None:
    """Make a checkpoint of the files whose sums are given: add `state.json`, rename, keep it and the one before.

    Those of later epochs are removed too: a run that writes this one has passed them over as damaged.
    """
    _refuse_other_files(temporary, sums)
    content = {"sha256": _sum_of_state(sums, state), "files": sums, "state": state}
    (temporary / _STATE).write_text(json.dumps(content), encoding="utf-8")
    flush(temporary / _STATE)
    flush(temporary)
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    flush(final.parent)
    folders = checkpoint_folders(final.parent)
    at = folders.index(final)
    for other in folders[:at] + folders[at + _KEPT :]:
        shutil.rmtree(other, ignore_errors=True)  # the next save tries again


def checked_state(path: Path, rank: int, size: int) -> dict[str, Any]:
    """The state of a checkpoint, once `state.json` and this worker's share of the other files are as they were written.

    Raises:
        CheckpointError: they are not.
    """
    try:
        content = json.loads((path / _STATE).read_text(encoding="utf-8"))
        sums, state = content["files"], content["state"]
        if content["sha256"] != _sum_of_state(sums, state):
            raise CheckpointError(f"{_STATE} does not have the sha256 that it states")
        _refuse_other_files(path, sums)
        names = sorted(sums)[rank::size]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for name, found in zip(names, pool.map(_sha256, [path / name for name in names]), strict=True):
                if found != sums[name]:
                    raise CheckpointError(f"{name} does not have the sha256 that {_STATE} states")
        return dict(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(described(error)) from error


def flush(path: Path) -> None:
    """Have the system write a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_other_files(path: Path, names: Iterable[str]) -> None:
    found = {file.name for file in path.iterdir() if file.suffix == _SUFFIX}
    for name in sorted(found ^ set(names)):
        raise CheckpointError(f"{name} {f'is not in {_STATE}' if name in found else 'is missing'}")


def _sum_of_state(sums: dict[str, str], state: dict[str, Any]) -> str:
    """Of the sums of the files and the state, which JSON gives back as they were."""
    return hashlib.sha256(json.dumps([sums, state]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
