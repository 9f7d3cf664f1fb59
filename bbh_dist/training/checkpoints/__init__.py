"""Checkpoints: tensors as safetensors, everything else as JSON, whole or absent; nothing in them needs pickle.

A checkpoint is a folder `epoch-000012` with a shard of safetensors from each worker that had something to write, and
`state.json`, which holds the sha256 of every file. Any number of workers reads what any number has written.
"""

from bbh_dist.training.checkpoints.files import CheckpointError
from bbh_dist.training.checkpoints.store import (
    Checkpoint,
    export_checkpoint,
    newest_checkpoint,
    open_checkpoint,
    save_checkpoint,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "export_checkpoint",
    "newest_checkpoint",
    "open_checkpoint",
    "save_checkpoint",
]
