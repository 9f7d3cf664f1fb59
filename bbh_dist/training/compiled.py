"""Training steps by torch.compile: their many small kernels become few, which a GPU replays as CUDA graphs.

Compiled are the trunks of weight generators and the objective. Heads are one product each, and what keeps factors of
gradients for the update is no tensor function. Noise is drawn outside, as its keys are new in every step. Imported only
where it is asked for: torch's compiler takes two seconds.
"""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
import torch._functorch.config

from bbh_dist.hypernets import Trunk, Trunks, WeightGenerator
from bbh_dist.methods import Method
from bbh_dist.noise import Noise
from bbh_dist.private_folder import keep_torch_programs_private
from bbh_dist.training.objective import Loss, Steps, objective

warnings.filterwarnings("ignore", ".*torch._prims_common.check", FutureWarning)  # torch's compiler warns of itself

_MOST_COMPILATIONS = 64
"""Of one function: for each method, number of samples and size of batches; torch allows 8 by itself."""


class OutsideNoise(Noise):
    """Noise that compiled functions ask for, and don't contain."""

    normal = torch.compiler.disable(Noise.normal)
    endless_normal = torch.compiler.disable(Noise.endless_normal)
    endless_integers = torch.compiler.disable(Noise.endless_integers)
    places = torch.compiler.disable(Noise.places)
    some = torch.compiler.disable(Noise.some)
    after = torch.compiler.disable(Noise.after)


class Compiled:
    """A function that is compiled at its first call; where that fails it stays as it is, after one line on stderr.

    Sizes are constants: a last batch that is smaller than the others is compiled for itself. The function must have no
    effects but its results, as a failure may come when a part of it has run.
    """

    def __init__(self, function: Callable[..., Any], device: torch.device) -> None:
        graphs = "reduce-overhead" if device.type == "cuda" else None
        self.plain, self.compiled = function, torch.compile(function, dynamic=False, mode=graphs)
        self.failed = False

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What the function returns."""
        if self.failed:
            return self.plain(*given, **named)
        try:
            with (
                torch._dynamo.config.patch(recompile_limit=_MOST_COMPILATIONS),
                # By itself torch compiles gradients when they are asked for, out of reach of the handler here.
                torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
            ):
                return self.compiled(*given, **named)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.failed = True
            why = " ".join(str(error).partition("Set TORCHDYNAMO")[0].split())[:300]
            print(f"bbh_dist: a part of training steps is not compiled: torch.compile failed: {why}", file=sys.stderr)
            return self.plain(*given, **named)


class CompiledObjective(Compiled):
    """`objective`; with its KL weight as a tensor, as every new number would be compiled."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(objective, device)
        self.device, self.dtype = device, dtype

    def __call__(self, *given: Any, kl_weight: float, **named: Any) -> Loss:
        """As `objective`, which see."""
        # Filled, as a copy to a GPU would make the host wait.
        weight = torch.full((), kl_weight, device=self.device, dtype=self.dtype)
        loss: Loss = super().__call__(*given, kl_weight=weight, **named)
        return loss


def compiled_steps(method: Method, device: torch.device, dtype: torch.dtype) -> Steps:
    """What a step of one worker calls; the method's trunks are compiled in place.

    Predictions, which draw other numbers of samples, stay as they are.

    Raises:
        OSError: there is no folder for compiled programs that only this user can write to.
    """
    keep_torch_programs_private()
    generators = [module for module in method.modules() if isinstance(module, WeightGenerator)]
    for trunks in (module for generator in generators for module in generator.children()):
        if isinstance(trunks, Trunk | Trunks):
            trunks.forward = _TrainingOnly(trunks.forward, device)  # type: ignore[method-assign]
    # All that a step runs, the sweeps between its backward passes too, is one generation of CUDA graphs.
    return Steps(CompiledObjective(device, dtype), OutsideNoise, torch.compiler.cudagraph_mark_step_begin)


class _TrainingOnly(Compiled):
    def __call__(self, *given: Any, **named: Any) -> Any:
        return super().__call__(*given, **named) if torch.is_grad_enabled() else self.plain(*given, **named)
