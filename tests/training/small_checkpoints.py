"""Small checkpoints of a lone process, and ways to damage one."""

from pathlib import Path

import torch

from bbh_dist.training import Workers
from bbh_dist.training.checkpoints import Checkpoint, newest_checkpoint, save_checkpoint

ALONE = Workers()
STATE = {"epoch": 3, "seconds": 0.1 + 0.2, "history": [{"val/nll": 1e-300, "train/kl": 18425.825248579546}]}
SHARD = "shard-00000.safetensors"


def save(folder: Path, *epochs: int) -> Path:
    for epoch in epochs:
        tensors = {"w": torch.full((3,), float(epoch))}
        path = save_checkpoint(folder, epoch, tensors, {**STATE, "epoch": epoch}, ALONE)
    return path


def newest(folder: Path) -> Checkpoint:
    found = newest_checkpoint(folder, ALONE)
    assert found is not None
    return found


def epoch_found(folder: Path) -> int:
    found = newest(folder)
    into = {"w": torch.empty(3)}
    found.read(into)
    assert into["w"].tolist() == [found.state["epoch"]] * 3
    assert found.epoch == found.state["epoch"]
    return found.epoch


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
