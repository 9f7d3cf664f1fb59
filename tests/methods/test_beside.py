"""Networks on threads of their own give what they give in turn, and leave torch's threads as they were."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from bbh_dist.methods.beside import beside_each_other

NETWORKS, THREADS = 5, 3
IN_A_FORK = """
import os, torch
from bbh_dist.methods.beside import beside_each_other
torch.set_num_threads(2)
run = lambda: beside_each_other(lambda x, own: x * own[0], torch.ones(3, 4), [torch.full((3, 1), 2.0)])
assert run().sum() == 24
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert run().sum() == 24
os._exit(7)
"""


@pytest.fixture(autouse=True)
def _several_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def piece(x: Tensor, own: Sequence[Tensor]) -> Tensor:
    weight, bias = own
    return torch.tanh(x @ weight + bias)


def tensors() -> tuple[Tensor, list[Tensor]]:
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(NETWORKS, *shape, generator=random, dtype=torch.float64)

    return normal(7, 4), [normal(4, 2).requires_grad_(), normal(1, 2).requires_grad_()]


def test_outputs_and_gradients_are_those_of_one_after_another() -> None:
    inputs, weights = tensors()
    found = beside_each_other(piece, inputs, weights)
    parts = zip(inputs.split(1), *(weight.split(1) for weight in weights), strict=True)
    expected = torch.cat([piece(x, own) for x, *own in parts])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    of_outputs = torch.arange(found.numel(), dtype=torch.float64).view_as(found)
    gradients = [torch.autograd.grad(outputs, weights, of_outputs) for outputs in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-14, atol=1e-14)


def test_several_run_at_a_time_and_torch_has_one_thread_in_each() -> None:
    """A barrier that fewer threads would not pass. The graph's backward pass is on such threads as well."""
    inputs, weights = torch.ones(THREADS, 2), [torch.ones(THREADS, 1, requires_grad=True)]
    together, seen = threading.Barrier(THREADS, timeout=20), []

    def look(gradient: Tensor) -> None:
        together.wait()
        seen.append((threading.get_ident(), torch.get_num_threads()))

    def waiting(x: Tensor, own: Sequence[Tensor]) -> Tensor:
        look(x)
        result = x * own[0]
        result.register_hook(look)
        return result

    beside_each_other(waiting, inputs, weights).sum().backward()
    assert len(seen) == 2 * THREADS
    assert len({thread for thread, _ in seen}) == THREADS
    assert {threads for _, threads in seen} == {1}
    assert threading.get_ident() not in dict(seen)


def test_a_failure_leaves_torch_its_threads_and_none_running() -> None:
    inputs, ended = torch.arange(NETWORKS).view(-1, 1), []

    def failing(x: Tensor, own: Sequence[Tensor]) -> Tensor:
        if x == 0:
            raise ArithmeticError("no outputs")
        time.sleep(0.2)
        ended.append(int(x))
        return x

    with pytest.raises(ArithmeticError, match="no outputs"):
        beside_each_other(failing, inputs, [])
    at_once = list(ended)
    time.sleep(0.5)
    assert 0 < len(at_once) == len(ended)
    assert torch.get_num_threads() == THREADS


def test_a_fork_has_threads_of_its_own() -> None:
    """In a process of its own, as pytest's has threads that a fork would lose."""
    assert subprocess.run([sys.executable, "-c", IN_A_FORK], timeout=60).returncode == 7
