"""A process that saves checkpoints one after another is killed at a random moment, again and again.

Usage: save_until_killed.py FOLDER ROUNDS SEED. Whoever writes is forked, so that torch is imported once. Prints a line
for every round: the epochs that were saved, the one that is found afterwards, and whether a save was cut off.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from bbh_dist.training import Workers
from bbh_dist.training.checkpoints import newest_checkpoint, save_checkpoint

NUMBERS = 500_000


def save_for_ever(folder: Path, first: int) -> None:
    for epoch in range(first, 10**6):
        tensors = {"w": torch.full((NUMBERS,), float(epoch)), "v": torch.full((NUMBERS,), -float(epoch))}
        save_checkpoint(folder, epoch, tensors, {"epoch": epoch}, Workers())
        note(folder, epoch)


def note(folder: Path, epoch: int) -> None:
    """Note that an epoch has been saved; the note is whole too, whenever its writer is killed."""
    (folder / "note.new").write_text(str(epoch))
    (folder / "note.new").replace(folder / "note")


def noted(folder: Path) -> int:
    return int((folder / "note").read_text())


def found_epoch(folder: Path) -> int:
    """The epoch of the newest checkpoint, once all of its numbers are seen to be that epoch's."""
    found = newest_checkpoint(folder, Workers())
    assert found is not None
    into = {"w": torch.empty(NUMBERS), "v": torch.empty(NUMBERS)}
    found.read(into)
    assert bool((into["w"] == found.epoch).all())
    assert bool((into["v"] == -found.epoch).all())
    return found.epoch


def main(folder: Path, rounds: int, seed: int) -> None:
    folder.mkdir()
    torch.set_num_threads(1)
    moments = random.Random(seed)
    save_checkpoint(folder, 1, {"w": torch.ones(NUMBERS), "v": -torch.ones(NUMBERS)}, {"epoch": 1}, Workers())
    epoch = 1
    for _ in range(rounds):
        note(folder, epoch)
        writer = os.fork()
        if writer == 0:
            save_for_ever(folder, epoch + 1)
        before = epoch
        while noted(folder) == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        saved = noted(folder)
        cut_off = any(folder.glob(".epoch-*"))
        epoch = found_epoch(folder)
        print(json.dumps([before, saved, epoch, cut_off]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
