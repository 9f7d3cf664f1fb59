"""One step of all parameters: gradients as far as they are needed, over all workers, clipped, and the optimiser.

The heads of a layer-wise generator are updated from the factors of their gradient (see `bbh_dist.factored`). The
backward pass stops at them; the sweep that updates a head also gives the gradient for its features, which is summed
over shards, and a second backward pass takes it to the trunks. Everything else goes by torch's functions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bbh_dist.config import Optimizer
from bbh_dist.factored import feature_gradient, new_state, squared_norm, sweep
from bbh_dist.hypernets import Head, LayerwiseGenerator
from bbh_dist.methods import Method
from bbh_dist.sharding import Shards, Workers
from bbh_dist.training.optimizers import DenseOptimizer, factored_rule


class Gradients:
    """The gradients of a method's parameters over all workers, those of layer-wise heads as factors.

    `heads` are updated from factors, `dense` are the other parameters, by name.
    """

    def __init__(self, config: Optimizer, method: Method, shards: Shards) -> None:
        self.config, self.method, self.shards = config, method, shards
        self.heads = _layerwise_heads(method) if config.factored else {}
        swept = {id(head.weight) for head in self.heads.values()}
        self.dense = {name: tensor for name, tensor in method.named_parameters() if id(tensor) not in swept}

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Have heads keep the factors of their gradients, from the draw of weights to the step."""
        for head in self.heads.values():
            head.factors = []
        try:
            yield
        finally:
            for head in self.heads.values():
                head.factors = None

    def differentiate(self, loss: Tensor, of_features: Callable[[str, "Call"], Tensor | None]) -> dict[str, "Call"]:
        """What the heads' calls left, once `grad` of `dense` is whole; to be called while collecting.

        `of_features` gives the gradient for the features of a head's calls.
        """
        loss.backward()
        used = {name: Call(head) for name, head in self.heads.items() if Call.is_used(head)}
        of_calls = [of_features(name, call) for name, call in used.items()]
        whole = [gradient for gradient in of_calls if gradient is not None]
        # Partial gradients are whole by now: where there are heads to be swept, trunks are not among them.
        partial = [parameter.grad for parameter in self.method.partial_parameters() if parameter.grad is not None]
        self.shards.group.sum_together({"feature_gradients": whole, "gradients": partial})
        if used:
            torch.autograd.backward([call.features for call in used.values()], whole)
        return used

    def squared_norm(self, used: dict[str, "Call"]) -> Tensor:
        """() of the whole gradient, the same on every worker; (S held here,) where weight samples are independent."""
        if self.method.independent:
            rows = [tensor.grad.flatten(1) for tensor in self.dense.values() if tensor.grad is not None]
            return torch.stack([row.double().square().sum(1) for row in rows]).sum(0)
        biases = {id(head.bias) for head in self.heads.values()}
        of_shards = [squared_norm(call.gradients, call.features.detach()) for call in used.values()]
        complete: list[Tensor] = []
        for tensor in self.dense.values():
            if tensor.grad is not None:
                (of_shards if id(tensor) in biases else complete).append(tensor.grad.double().square().sum())
        total = sum(complete, torch.zeros((), dtype=torch.float64, device=next(iter(self.dense.values())).device))
        return total + self.shards.group.sum(sum(of_shards, torch.zeros_like(total)), "norm")


class Update(Gradients):
    """The optimiser of a method's parameters, and its state."""

    def __init__(self, config: Optimizer, method: Method, workers: Workers) -> None:
        super().__init__(config, method, workers.shards)
        self.optimizer = DenseOptimizer(config, self.dense)
        rule = factored_rule(config, config.lr, 1)
        dtype = torch.bfloat16 if config.second_moment == "bfloat16" else None
        self.states = {name: new_state(head.weight, rule, dtype) for name, head in self.heads.items()}
        self.steps = 0

    def step(self, loss: Tensor, lr: float) -> None:
        """Differentiate this worker's part of a loss and step; to be called while collecting."""
        self.steps += 1
        self.optimizer.zero_grad()
        if self.config.gradient_clip is None:
            self.differentiate(loss, lambda name, call: self._sweep(name, call, lr))
        else:
            used = self.differentiate(
                loss, lambda name, call: feature_gradient(call.gradients, self.heads[name].weight)
            )
            self._clip_and_sweep(used, lr, self.config.gradient_clip)
        self.optimizer.lr = lr
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """The optimiser's state, named PARAMETER.ENTRY."""
        found = {
            f"{name}.{entry}": value for name, state in self.optimizer.state.items() for entry, value in state.items()
        }
        found |= {f"{name}.{entry}": value for name, state in self.states.items() for entry, value in state.items()}
        return found

    def load(self, steps: int, tensors: dict[str, Tensor]) -> None:
        """Go on from a state that `tensors` gave, in place for the heads, whose state it may be."""
        self.steps = steps
        for name, value in tensors.items():
            parameter, _, entry = name.rpartition(".")
            if parameter in self.states:
                if self.states[parameter][entry] is not value:
                    self.states[parameter][entry].copy_(value)
            elif parameter in self.dense:
                self.optimizer.state.setdefault(parameter, {})[entry] = value
            else:
                raise KeyError(parameter)

    def _clip_and_sweep(self, used: dict[str, "Call"], lr: float, clip: float) -> None:
        """Step along the gradient, shortened to the norm `clip`, each of independent weight samples by itself.

        On a GPU the host does not wait for the factor.
        """
        scale = (clip / (self.squared_norm(used).sqrt() + 1e-6)).clamp_max(1.0)
        for name, call in used.items():
            self._sweep(name, call, lr, features=call.features.detach() * scale, differentiate=False)
        for gradient in (tensor.grad for tensor in self.dense.values() if tensor.grad is not None):
            gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)) if scale.dim() else scale)

    def _sweep(
        self, name: str, call: "Call", lr: float, *, features: Tensor | None = None, differentiate: bool = True
    ) -> Tensor | None:
        head = self.heads[name]
        return sweep(
            head.weight,
            self.states[name],
            call.gradients,
            call.features.detach() if features is None else features,
            factored_rule(self.config, lr, self.steps),
            first_row=head.rows.start,
            salt=list(self.heads).index(name),
            feature_gradient=differentiate,
        )


class Call:
    """What a head's calls of one step left: features with their graph (S, F) and gradients (S, D)."""

    def __init__(self, head: Head) -> None:
        factors = [factors for factors in head.factors or [] if factors.gradients is not None]
        self.features = _joined([part.features.flatten(0, -2) for part in factors])
        self.gradients = _joined([part.gradients for part in factors if part.gradients is not None])

    @staticmethod
    def is_used(head: Head) -> bool:
        """Whether a gradient came by."""
        return any(factors.gradients is not None for factors in head.factors or [])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)  # which copies even one


def _layerwise_heads(method: nn.Module) -> dict[str, Head]:
    """The heads of layer-wise generators, by the names of their weights."""
    return {
        f"{prefix}.{name}.weight": head
        for prefix, module in method.named_modules()
        if isinstance(module, LayerwiseGenerator)
        for name, head in module.named_modules()
        if isinstance(head, Head)
    }
