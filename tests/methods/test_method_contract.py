"""What holds for every method: one class, inherited by the tests of each."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bbh_dist.config import BbbMethod, BbhMethod, DropoutMethod, EnsembleMethod, MapMethod, MethodConfig, MnfMethod
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import SampleShare
from bbh_dist.training import objective

NOISE = Noise(seed=2, purpose="train", step=1, samples=range(4))
IMAGES = torch.randn(6, 2, 16, 17, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


class MethodContract:
    """A subclass gives `config`, and `samples`, how many logits 4 weight samples make."""

    samples = 4

    @pytest.fixture(params=["mlp:5", "lenet"])
    def method(self, config: MethodConfig, request: pytest.FixtureRequest) -> Method:
        return self.built(config, request.param)

    @staticmethod
    def built(config: MethodConfig, network: str, seed: int = 0) -> Method:
        return build_method(config, build_network(network, (2, 16, 17), 3), keyed_generator("initial", seed))

    @staticmethod
    def results(method: Method, noise: Noise = NOISE) -> tuple[Tensor, Tensor]:
        drawn = method.draw(noise)
        return method(IMAGES.to(noise.dtype), drawn), method.divergence(drawn)

    def test_shapes(self, method: Method) -> None:
        logits, divergence = self.results(method)
        assert logits.shape == (self.samples, 6, 3)
        assert divergence.shape == ()
        assert torch.isfinite(logits).all()
        assert torch.isfinite(divergence)

    def test_a_share_has_the_logits_of_its_samples(self, method: Method) -> None:
        """In double precision: how products of fewer samples are rounded depends on the processor."""
        method.double()
        noise = replace(NOISE, dtype=torch.float64)
        share = method(IMAGES.double(), method.draw(noise), SampleShare(min(2, self.samples)))
        torch.testing.assert_close(share, self.results(method, noise)[0][:2], rtol=1e-11, atol=1e-11)

    def test_every_parameter_has_a_finite_gradient(self, method: Method, config: MethodConfig) -> None:
        drawn = method.draw(NOISE)
        share = SampleShare(method.fixed_samples or 1)
        x, labels = IMAGES, LABELS
        if method.independent:
            x, labels = x.expand(share.count, *x.shape), labels.expand(share.count, -1)
        loss = objective(method, config, x, labels, drawn, share, batch=6, examples=50, kl_weight=1.0).part
        loss.backward()
        for name, parameter in method.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name

    def test_the_seed_decides_all_bits(self, method: Method, config: MethodConfig) -> None:
        network = "lenet" if "conv1" in method.network.layers else "mlp:5"
        assert all(map(torch.equal, self.results(method), self.results(self.built(config, network))))
        assert not torch.equal(self.results(method)[0], self.results(self.built(config, network, seed=1))[0])

    def test_samples_differ_and_do_not_depend_on_their_number(self, method: Method) -> None:
        """Within 1e-5: a product of more rows may add in another order."""
        logits, _ = self.results(method)
        fewer, _ = self.results(method, replace(NOISE, samples=(0, 1)))
        torch.testing.assert_close(fewer, logits[:2], rtol=1e-5, atol=1e-5)
        assert not any(torch.allclose(a, b) for a, b in itertools.combinations(logits, 2))

    def test_each_sample_may_have_examples_of_its_own(self, method: Method) -> None:
        """Within 1e-5: a product of more rows may add in another order."""
        share = SampleShare(self.samples)
        own = torch.stack([IMAGES * (index + 1) for index in range(self.samples)])
        drawn = method.draw(NOISE)
        expected = [method(x, drawn, share)[index] for index, x in enumerate(own)]
        torch.testing.assert_close(method.each(own, drawn, share), torch.stack(expected), rtol=1e-5, atol=1e-5)

    def test_state_round_trip_gives_the_same_predictions(self, method: Method, config: MethodConfig) -> None:
        other = self.built(config, "lenet" if "conv1" in method.network.layers else "mlp:5", seed=1)
        other.load_state_dict(method.state_dict())
        assert all(map(torch.equal, self.results(method), self.results(other)))

    def test_double_precision_agrees_with_single(self, config: MethodConfig) -> None:
        """Evaluated on the same noise, drawn in single precision; tolerance 1e-3 for the divergence's distances."""
        method = self.built(config, "mlp:5")
        single = self.results(method)
        double = self.results(method.double(), SinglePrecisionNoise(**vars(replace(NOISE, dtype=torch.float64))))
        assert all(result.dtype == torch.float64 for result in double)
        torch.testing.assert_close(double, tuple(part.double() for part in single), rtol=1e-3, atol=1e-4)


class SinglePrecisionNoise(Noise):
    """The numbers of single precision in double."""

    def normal(self, name: str, size: int, part: range | None = None) -> Tensor:
        return Noise(**vars(replace(self, dtype=torch.float32))).normal(name, size, part).double()

    def endless_normal(self, name: str, part: range) -> Tensor:
        return Noise(**vars(replace(self, dtype=torch.float32))).endless_normal(name, part).double()


class TestMap(MethodContract):
    samples = 1

    @pytest.fixture
    def config(self) -> MapMethod:
        return MapMethod(name="map", prior_stddev=1.7)


class TestEnsemble(MethodContract):
    @pytest.fixture
    def config(self) -> EnsembleMethod:
        return EnsembleMethod(name="ensemble", members=4, prior_stddev=1.7)


class TestDropout(MethodContract):
    @pytest.fixture
    def config(self) -> DropoutMethod:
        return DropoutMethod(name="dropout", rate=0.3, prior_stddev=1.7)


class TestBayesByBackprop(MethodContract):
    @pytest.fixture(params=["reparameterised", "local", "flipout"])
    def config(self, request: pytest.FixtureRequest) -> BbbMethod:
        return BbbMethod(name="bbb", estimator=request.param, initial_stddev=0.4, prior_stddev=1.7)


class TestBayesByHypernet(MethodContract):
    @pytest.fixture(params=["single", "sliced", "layerwise"])
    def kind(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture(params=["semi_implicit", "knn", "knn_marginal", "gaussian", "discriminator"])
    def config(self, kind: str, request: pytest.FixtureRequest) -> BbhMethod:
        return BbhMethod.model_validate(
            {
                "name": "bbh",
                "generator": {"kind": kind, "hidden": (4, 6), "noise_dim": 3, "shared_noise": kind != "sliced"},
                "divergence": request.param,
                "prior_stddev": 1.7,
                "kl_samples": 4,
                "likelihood_samples": 2,
            }
        )


class TestSigmaOfUnits(MethodContract):
    @pytest.fixture
    def config(self) -> BbhMethod:
        return BbhMethod.model_validate(
            {
                "name": "bbh",
                "generator": {"hidden": (4, 6), "noise_dim": 3},
                "semi_implicit": {"stddev": "unit"},
                "kl_samples": 4,
            }
        )


class TestMultiplicativeNormalizingFlows(MethodContract):
    @pytest.fixture(params=["reparameterised", "local"])
    def config(self, request: pytest.FixtureRequest) -> MnfMethod:
        return MnfMethod.model_validate(
            {
                "name": "mnf",
                "posterior_hidden": 4,
                "auxiliary_hidden": 6,
                "estimator": request.param,
                "prior_stddev": 1.7,
                "likelihood_samples": 2,
            }
        )
