"""The tensors of a run's state, as a checkpoint names them, whoever holds their rows.

`method.PARAMETER`, `best.PARAMETER` (the weights of the best epoch so far) and `optimizer.PARAMETER.ENTRY`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from bbh_dist.methods import Method
from bbh_dist.sharding import Workers
from bbh_dist.training.checkpoints import Checkpoint
from bbh_dist.training.update import Update


def state_tensors(method: Method, update: Update, best: Mapping[str, Tensor], workers: Workers) -> dict[str, Tensor]:
    """All tensors of a run by name; those whose rows are sharded as distributed tensors."""
    tensors = {f"method.{name}": value for name, value in method.state_dict().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"optimizer.{name}": value for name, value in update.tensors().items()}
    return _whole(tensors, method, workers)


def read_state(checkpoint: Checkpoint, method: Method, update: Update, workers: Workers) -> dict[str, Tensor]:
    """Load a checkpoint into a method and its optimiser, and return the best epoch's weights that it holds."""
    own, held = method.state_dict(), update.tensors()
    tensors = {f"method.{name}": value for name, value in own.items()}
    for name, (shape, dtype) in checkpoint.shapes.items():
        like = own[_parameter(name)]
        if name.startswith("best."):
            tensors[name] = torch.empty_like(like)
        elif name.startswith("optimizer."):
            fresh = torch.empty_like(like, dtype=dtype) if shape else torch.empty((), dtype=dtype, device=like.device)
            tensors[name] = held.get(name.removeprefix("optimizer."), fresh)
    checkpoint.read(_whole(tensors, method, workers))
    update.load(checkpoint.state["steps"], _below("optimizer.", tensors))
    return _below("best.", tensors)


def _whole(tensors: Mapping[str, Tensor], method: Method, workers: Workers) -> dict[str, Tensor]:
    """Tensors whose rows are sharded become distributed ones; scalars of an optimiser's state are not."""
    totals = method.split_rows()
    return {
        name: workers.sharded(value, totals[_parameter(name)]) if value.dim() and _parameter(name) in totals else value
        for name, value in tensors.items()
    }


def _parameter(name: str) -> str:
    """The parameter that a tensor of the state belongs to."""
    kind, _, rest = name.partition(".")
    return rest.rpartition(".")[0] if kind == "optimizer" else rest


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
