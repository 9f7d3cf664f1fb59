"""Compiled training steps: the same steps, compiled once for each size of batch.

torch's "aot_eager" backend takes programs and their gradients apart as the default one does, and then runs torch's own
operations. The default one, inductor, needs a C++ compiler and many seconds: once.
"""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from small_runs import METHODS, experiment, small_task
from torch import Tensor, fx
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.backends.registry import lookup_backend

from bbh_dist.hypernets import Trunk, Trunks
from bbh_dist.training import Trainer
from bbh_dist.training.compiled import Compiled

# torch's compiler looks at gradients of what is no leaf, and hides the warning, but not from filters that raise.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")

LONG = pytest.mark.cluster
CASES: dict[str, dict[str, Any]] = METHODS | {
    "bbb-local": METHODS["bbb"] | {"estimator": "local"},
    "bbb-flipout": METHODS["bbb"] | {"estimator": "flipout"},
    "single-knn": METHODS["single"] | {"divergence": "knn"},
    "single-discriminator": METHODS["single"]
    | {"divergence": "discriminator", "discriminator": {"hidden": [5], "pretraining_steps": 3, "weights": 13}},
    "single-inner-samples": METHODS["single"] | {"semi_implicit": {"inner_samples": 6}},
}


class Counting:
    """A backend that counts the programs that it has another one compile."""

    def __init__(self, name: str) -> None:
        self.compile = lookup_backend(name)
        self.programs = 0

    def __call__(self, program: fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.programs += 1
        return self.compile(program, inputs)


def failing(program: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no such compiler")


def failing_for_gradients(program: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    def run(part: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        return make_boxed_func(part.forward)

    found: Callable[..., Any] = aot_autograd(fw_compiler=run, bw_compiler=failing)(program, inputs)
    return found


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.set_default_backend(None)
    torch.compiler.reset()


def fell_back(trainer: Trainer) -> bool:
    trunks = [module.forward for module in trainer.method.modules() if isinstance(module, Trunk | Trunks)]
    return any(part.failed for part in (trainer._steps.objective, *trunks) if isinstance(part, Compiled))


def trained(method: dict[str, Any], *, compile: bool, stop_after: int = 2, **changes: Any) -> Trainer:
    settings = {"optimizer": {"lr": 0.01}, "epochs": 2, "batch_size": 8, "parallel": {"compile": compile}}
    trainer = Trainer(experiment(method, **settings | changes), small_task())
    for _ in range(stop_after):
        trainer.run_epoch()
    return trainer


def check_same(found: Trainer, expected: Trainer, tolerance: float) -> None:
    weights = found.method.state_dict()
    for name, value in expected.method.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=tolerance, atol=tolerance)
    for here, there in zip(found.history, expected.history, strict=True):
        for name in ("train/loss", "train/nll", "train/kl", "val/nll"):
            assert here[name] == pytest.approx(there[name], rel=tolerance)


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "layerwise" else LONG) for name in CASES])
def test_steps_are_compiled_once_and_stay_the_same(name: str) -> None:
    backend = Counting("aot_eager")
    torch.compiler.set_default_backend(backend)
    method = CASES[name] | {"anneal": {"start": 0, "epochs": 4}}  # another KL weight in every step
    compiled = trained(method, compile=True, stop_after=1)
    programs = backend.programs
    assert programs >= 1
    compiled.test()
    compiled.run_epoch()
    assert backend.programs == programs
    assert not fell_back(compiled)
    check_same(compiled, trained(method, compile=False), 1e-10)


@LONG
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler: no g++")
def test_inductor_takes_the_same_steps() -> None:
    compiled = trained(METHODS["layerwise"], compile=True)
    assert not fell_back(compiled)
    check_same(compiled, trained(METHODS["layerwise"], compile=False), 1e-8)


def test_a_smaller_last_batch_is_compiled_once_too() -> None:
    backend = Counting("aot_eager")
    torch.compiler.set_default_backend(backend)
    trainer = trained(METHODS["map"], compile=True, batch_size=11, stop_after=1)  # the last batch has one example
    programs = backend.programs
    assert programs >= 2
    trainer.run_epoch()
    assert backend.programs == programs
    assert not fell_back(trainer)


@pytest.mark.parametrize("backend", [failing, failing_for_gradients])
def test_a_compiler_that_fails_is_told_once_and_replaced(
    backend: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.compiler.set_default_backend(backend)
    found = trained(METHODS["map"], compile=True)
    said = capsys.readouterr().err
    assert said.count("torch.compile failed") == 1
    assert "no such compiler" in said
    check_same(found, trained(METHODS["map"], compile=False), 0)
