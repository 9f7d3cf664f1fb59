"""Weight samples in threads give what one pass over them gives, and leave torch's number of threads as it was."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bbh_dist.networks import build_network, sampled_layers
from bbh_dist.networks.concurrent import _map, concurrent

SAMPLES = 5
NETWORK = build_network("lenet", (2, 16, 17), 3)
RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(SAMPLES, 4, 2, 16, 17, generator=RANDOM, dtype=torch.float64)
WEIGHTS = [torch.randn(SAMPLES, *t.shape, generator=RANDOM, dtype=torch.float64) * t.scale for t in NETWORK.tensors]
COTANGENT = torch.randn(SAMPLES, 4, 3, generator=RANDOM, dtype=torch.float64)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def named() -> dict[str, Tensor]:
    return {t.name: weight.clone().requires_grad_() for t, weight in zip(NETWORK.tensors, WEIGHTS, strict=True)}


def of_concurrent(in_turn: bool = False) -> tuple[Tensor, ...]:
    """Logits and gradients."""
    weights = named()
    logits = concurrent(NETWORK, weights, X, in_turn=in_turn)
    return (logits.detach(), *torch.autograd.grad(logits, list(weights.values()), COTANGENT))


def test_values_and_gradients_are_those_of_one_pass(threads: int) -> None:
    weights = named()
    logits = NETWORK(sampled_layers(NETWORK.layers, weights), X)
    expected = (logits.detach(), *torch.autograd.grad(logits, list(weights.values()), COTANGENT))
    torch.testing.assert_close(of_concurrent(), expected, rtol=1e-10, atol=1e-10)
    assert all(part.any() for part in expected)


def test_the_number_of_threads_decides_no_bit(threads: int) -> None:
    found = of_concurrent()
    torch.set_num_threads(1)
    assert all(map(torch.equal, found, of_concurrent()))


def test_samples_may_be_taken_in_turn(threads: int) -> None:
    torch.testing.assert_close(of_concurrent(in_turn=True), of_concurrent(), rtol=1e-12, atol=1e-12)


def test_each_thread_has_one_to_itself_and_the_rest_keep_theirs(threads: int) -> None:
    """Also where the number of threads is set again, which torch keeps for all."""
    for _ in range(2):
        assert _map(lambda index: (index, torch.get_num_threads()), 6, threads) == [(index, 1) for index in range(6)]
        assert torch.get_num_threads() == threads
        torch.set_num_threads(threads)


def test_errors_of_a_thread_are_raised(threads: int) -> None:
    with pytest.raises(RuntimeError, match="to have 2 channels"):
        concurrent(NETWORK, named(), X[:, :, :1])
