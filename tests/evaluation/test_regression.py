"""Predictions of numbers against torch.distributions' mixtures, in any number of chunks and parts."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from bbh_dist.config import BbhMethod, Generator, MapMethod, measures_of
from bbh_dist.evaluation import RegressionPrediction, measure_means, predict_means, prediction
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import Workers
from bbh_dist.tasks import Gaussian

BBH = BbhMethod(name="bbh", generator=Generator(hidden=(6,), noise_dim=3))
LIKELIHOOD = Gaussian(9.0, offset=5.0, scale=32.0)
SAMPLES, EXAMPLES = 23, 450
SHIFTED = Gaussian(1.0, offset=3.0)


def noise(samples: int = SAMPLES) -> Noise:
    return Noise(4, "test", 2, range(samples), dtype=torch.float64)


def inputs(examples: int = EXAMPLES) -> Tensor:
    return torch.randn(examples, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def method(config: BbhMethod | MapMethod = BBH) -> Method:
    return build_method(config, build_network("mlp:5", (3,), 1), keyed_generator("initial")).double()


@torch.no_grad()
def at_once(of: Method, x: Tensor, samples: int = SAMPLES) -> Tensor:
    return 5 + 32 * of(x, of.draw(noise(samples)))[..., 0]


def mixture(means: Tensor) -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(torch.ones_like(means.T)), Normal(means.T, 9.0))


def test_it_is_the_mixture_over_weight_samples() -> None:
    found, expected = predict_means(method(), inputs(), noise(), LIKELIHOOD), mixture(at_once(method(), inputs()))
    targets = 5 + 30 * torch.randn(EXAMPLES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.predictive_stddev, expected.stddev, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.log_density(targets), expected.log_prob(targets), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.stddev**2 + 81, expected.variance, rtol=1e-10, atol=1e-10)
    assert float(found.stddev.min()) > 1


def test_far_targets_have_a_finite_density() -> None:
    """Densities themselves would be zero."""
    found = RegressionPrediction(torch.tensor([[0.0], [900.0]], dtype=torch.float64), LIKELIHOOD)
    expected = Normal(0.0, 9.0).log_prob(torch.tensor(-9e3)) - torch.tensor(2.0).log()
    assert float(found.log_density(torch.tensor([-9e3]))) == pytest.approx(float(expected), rel=1e-6)


def test_measures_by_hand() -> None:
    means = torch.tensor([[0.0, 10.0, 0.0, 4.0], [24.0, 10.0, 0.0, 4.0]], dtype=torch.float64)
    found = measure_means(RegressionPrediction(means, LIKELIHOOD), torch.tensor([-17.0, 27.0, 18.5, 4.0]))
    # Means 12, 10, 0, 4; deviations with noise 15, 9, 9, 9; errors 29, 17, 18.5, 0.
    assert found["rmse"] == pytest.approx(((29**2 + 17**2 + 18.5**2) / 4) ** 0.5)
    assert found["coverage"] == 75.0
    densities = mixture(means).log_prob(torch.tensor([-17.0, 27.0, 18.5, 4.0], dtype=torch.float64))
    assert found["nll"] == pytest.approx(-float(densities.mean()))


def test_all_documented_measures_are_measured() -> None:
    found = measure_means(predict_means(method(), inputs(), noise(), LIKELIHOOD), torch.zeros(EXAMPLES))
    assert sorted(found) == sorted(measures_of("regression", outliers=False))


@pytest.mark.parametrize(("at_a_time", "product"), [(1, 1), (3, 50), (4, 7), (1000, 10**6)])
def test_the_size_of_chunks_does_not_matter(monkeypatch: pytest.MonkeyPatch, at_a_time: int, product: int) -> None:
    monkeypatch.setattr(prediction, "_SAMPLES_AT_ONCE", at_a_time)
    monkeypatch.setattr(prediction, "_EXAMPLES_TIMES_SAMPLES", product)
    found = predict_means(method(), inputs(41), noise(11), LIKELIHOOD)
    torch.testing.assert_close(found.means, at_once(method(), inputs(41), 11), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("config", [BBH, MapMethod(name="map")])
@pytest.mark.parametrize(
    ("samples", "examples", "workers"), [(1, 20, 3), (2, 1, 2), (3, 20, 2), (4, 0, 3), (23, 450, 4)]
)
def test_the_parts_of_workers_add_up(config: BbhMethod | MapMethod, samples: int, examples: int, workers: int) -> None:
    of, x = method(config), inputs(examples)
    parts = [predict_means(of, x, noise(samples), SHIFTED, Workers(rank, workers)) for rank in range(workers)]
    expected = predict_means(of, x, noise(samples), SHIFTED).means
    torch.testing.assert_close(torch.stack([part.means for part in parts]).sum(0), expected, rtol=1e-10, atol=1e-10)
    filled = torch.stack([part.means != 0 for part in parts]).sum(0)
    assert (filled == 1).all()  # each pair is one worker's


def test_a_point_estimate_has_no_spread_over_weights() -> None:
    found = predict_means(method(MapMethod(name="map")), inputs(), noise(), LIKELIHOOD)
    assert found.means.shape == (1, EXAMPLES)
    assert not found.stddev.any()
    assert found.predictive_stddev.unique().tolist() == [9.0]
