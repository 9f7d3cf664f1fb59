"""Prediction in chunks equals prediction at once, and no call sees more than its share."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbh_dist.config import BbhMethod, Generator, MapMethod
from bbh_dist.evaluation import Prediction, entropy, predict, prediction
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import ALONE, SampleShare, Workers

BBH = BbhMethod(name="bbh", generator=Generator(hidden=(6,), noise_dim=3))


def noise(samples: int) -> Noise:
    return Noise(4, "test", 2, range(samples), dtype=torch.float64)


def inputs(examples: int) -> Tensor:
    return torch.randn(examples, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def method(config: BbhMethod | MapMethod = BBH) -> Method:
    return build_method(config, build_network("mlp:5", (3,), 4), keyed_generator("initial")).double()


@torch.no_grad()
def at_once(of: Method, x: Tensor, samples: int) -> Prediction:
    p = of(x, of.draw(noise(samples))).softmax(-1)
    return Prediction(p.mean(0), entropy(p).mean(0))


def check_equal(found: Prediction, expected: Prediction) -> None:
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.expected_entropy, expected.expected_entropy, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("samples", "examples"), [(1, 1), (7, 3), (10, 450), (33, 450), (2, 2500)])
def test_it_equals_all_at_once(samples: int, examples: int) -> None:
    x = inputs(examples)
    check_equal(predict(method(), x, noise(samples)), at_once(method(), x, samples))


@pytest.mark.parametrize(("at_a_time", "product"), [(1, 1), (3, 50), (4, 7), (1000, 10**6)])
def test_the_size_of_chunks_does_not_matter(monkeypatch: pytest.MonkeyPatch, at_a_time: int, product: int) -> None:
    monkeypatch.setattr(prediction, "_SAMPLES_AT_ONCE", at_a_time)
    monkeypatch.setattr(prediction, "_EXAMPLES_TIMES_SAMPLES", product)
    check_equal(predict(method(), inputs(41), noise(11)), at_once(method(), inputs(41), 11))


def test_a_point_estimate_is_the_same_however_many_samples_are_asked_for() -> None:
    of = method(MapMethod(name="map"))
    found = predict(of, inputs(20), noise(35))
    check_equal(found, predict(of, inputs(20), noise(1)))
    assert found.mutual_information.max() < 1e-12


@pytest.mark.parametrize("config", [BBH, MapMethod(name="map")])
@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize(("samples", "examples"), [(1, 20), (2, 1), (3, 20), (4, 0), (12, 20), (23, 450), (7, 2500)])
def test_the_parts_of_workers_add_up(config: BbhMethod | MapMethod, workers: int, samples: int, examples: int) -> None:
    """Workers without a group behind them: what each gives is its own part of the sums."""
    of, x = method(config), inputs(examples)
    parts = [predict(of, x, noise(samples), Workers(rank, workers)) for rank in range(workers)]
    total = Prediction(sum(part.probabilities for part in parts), sum(part.expected_entropy for part in parts))
    check_equal(total, predict(of, x, noise(samples)))
    shares = torch.stack([part.probabilities.sum() for part in parts])
    if samples * examples >= workers and of.fixed_samples is None:
        assert shares.max() <= 1.5 * shares.min() + 1.01  # nobody does the work of two


def test_no_examples_give_an_empty_prediction() -> None:
    found = predict(method(), inputs(0), noise(12))
    assert (found.probabilities.shape, found.expected_entropy.shape) == ((0, 4), (0,))


class Counting(nn.Module):
    """A method that remembers how much was asked of it in a call."""

    fixed_samples = None
    shards = ALONE

    def __init__(self, examples: Tensor) -> None:
        super().__init__()
        self.examples = examples
        self.network = build_network("mlp:5", (3,), 4)
        self.drawn: list[int] = []
        self.calls: list[tuple[int, int]] = []

    def draw(self, noise: Noise) -> Any:
        self.drawn.append(len(noise))
        return list(noise.samples)

    def forward(self, inputs: Tensor, drawn: list[int], samples: SampleShare, first: int) -> Tensor:
        torch.testing.assert_close(inputs, self.examples[first : first + len(inputs)])  # each is told its place
        used = [drawn[index] for index in samples.own]
        self.calls.append((len(used), len(inputs)))
        return torch.tensor(used, dtype=torch.float64)[:, None, None] * inputs[None]


def test_memory_is_bounded_and_every_pair_is_seen_once() -> None:
    of = Counting(inputs(3000))
    found = predict(of, inputs(3000), noise(104))  # type: ignore[arg-type]
    assert max(of.drawn) <= 20
    assert sum(of.drawn) == 104
    assert max(samples * examples for samples, examples in of.calls) <= 200
    assert sum(samples * examples for samples, examples in of.calls) == 104 * 3000
    expected = (torch.arange(104, dtype=torch.float64)[:, None, None] * inputs(3000)).softmax(-1).mean(0)
    torch.testing.assert_close(found.probabilities, expected, rtol=0, atol=1e-12)
