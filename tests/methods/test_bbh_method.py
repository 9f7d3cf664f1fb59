"""What Bayes by Hypernet hands to the divergences, which have tests of their own."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bbh_dist.config import BbhMethod
from bbh_dist.divergences import gaussian_moment_kl, knn_kl, knn_marginal_kl, semi_implicit_kl
from bbh_dist.methods import BayesByHypernet
from bbh_dist.networks import build_network
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import ALONE, Group, SampleShare, Shards
from bbh_dist.training import objective

NETWORK = build_network("mlp:5", (7,), 3)
NOISE = Noise(seed=2, purpose="train", step=1, samples=range(6), dtype=torch.float64)
PRIOR = 1.7


def built(shards: Shards = ALONE, **settings: Any) -> BayesByHypernet:
    generator = {"kind": "layerwise", "hidden": (4, 6), "noise_dim": 3}
    config = BbhMethod.model_validate({"name": "bbh", "prior_stddev": PRIOR, "generator": generator, **settings})
    return BayesByHypernet(config, NETWORK, keyed_generator("initial", 0), shards).double()


def first(parts: list[Tensor], count: int) -> list[Tensor]:
    return [part[:count] for part in parts]


def drawn_by_name(prefix: str, noise: Noise) -> list[Tensor]:
    return [noise.normal(f"{prefix}/{tensor.name}", tensor.size) for tensor in NETWORK.tensors]


def test_semi_implicit_weights_are_means_and_scaled_noise() -> None:
    method = built(semi_implicit={"initial_stddev": 0.3})
    drawn, eps = method.draw(NOISE), drawn_by_name("eps", NOISE)
    assert drawn.deviations is not None
    torch.testing.assert_close(drawn.means, method.generator(NOISE))
    torch.testing.assert_close(drawn.deviations, eps)
    for tensor, weight, mean, deviation in zip(
        NETWORK.tensors, method._weights(drawn, len(NOISE)), drawn.means, eps, strict=True
    ):
        torch.testing.assert_close(weight, mean + 0.3 * tensor.scale * deviation, rtol=1e-6, atol=1e-6)


def test_each_output_unit_may_have_a_sigma() -> None:
    """mlp:5 on 7 inputs and 3 classes has 5 units and then 3; of a bias each weight is one."""
    method = built(semi_implicit={"initial_stddev": 0.3, "stddev": "unit"})
    assert method.log_stddevs is not None
    assert method.log_stddevs.shape == (5 + 5 + 3 + 3,)
    scales = [tensor.scale for tensor in NETWORK.tensors for _ in range(tensor.shape[0])]
    torch.testing.assert_close(method.log_stddevs.detach(), (0.3 * torch.tensor(scales)).log().double())
    method.log_stddevs.data += torch.arange(16) / 10
    drawn, eps = method.draw(NOISE), drawn_by_name("eps", NOISE)
    stddevs = method.log_stddevs.exp().split([5, 5, 3, 3])
    weights = method._weights(drawn, len(NOISE))
    for tensor, weight, mean, deviation, stddev in zip(
        NETWORK.tensors, weights, drawn.means, eps, stddevs, strict=True
    ):
        of_unit = stddev.view(-1, *(1 for _ in tensor.shape[1:]))
        expected = mean.unflatten(1, tensor.shape) + of_unit * deviation.unflatten(1, tensor.shape)
        torch.testing.assert_close(weight.unflatten(1, tensor.shape), expected)


def test_equal_sigmas_of_units_give_the_divergence_of_the_tensor() -> None:
    values = [built(semi_implicit={"stddev": stddev}) for stddev in ("tensor", "unit")]
    torch.testing.assert_close(*(method.divergence(method.draw(NOISE)) for method in values), rtol=1e-10, atol=0)


def test_implicit_weights_are_what_the_generator_makes() -> None:
    method = built(divergence="knn")
    drawn = method.draw(NOISE)
    assert drawn.deviations is None
    torch.testing.assert_close(method._weights(method.draw(NOISE), len(NOISE)), method.generator(NOISE), rtol=0, atol=0)


@pytest.mark.parametrize(("inner", "used"), [(None, 3), (0, 0), (2, 2), (3, 3), (4, 4), (9, 9)])
def test_semi_implicit_divergence_is_of_the_first_kl_samples(inner: int | None, used: int) -> None:
    """6 samples are drawn for the likelihood, 4 are for the KL; further inner draws are numbered from 6."""
    method = built(kl_samples=4, likelihood_samples=6, semi_implicit={"inner_samples": inner})
    drawn = method.draw(NOISE)
    others = method.generator(NOISE.after(6, 6))
    means = [torch.cat(pair) for pair in zip(first(drawn.means, 4), others, strict=True)]
    log_stddevs = torch.tensor([math.log(0.2 * tensor.scale) for tensor in NETWORK.tensors]).double()
    expected = semi_implicit_kl(means, first(drawn_by_name("eps", NOISE), 4), log_stddevs, PRIOR, used)
    assert method.divergence(drawn).item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize(("name", "estimate"), [("knn", knn_kl), ("knn_marginal", knn_marginal_kl)])
def test_nearest_neighbour_divergences_meet_samples_of_the_scaled_prior(name: str, estimate: Any) -> None:
    method = built(divergence=name, kl_samples=4, likelihood_samples=6)
    drawn = method.draw(NOISE)
    prior = [PRIOR * part for part in drawn_by_name("prior", NOISE.after(0, 4))]
    expected = estimate(first(drawn.means, 4), prior)
    assert method.divergence(drawn).item() == pytest.approx(expected.item(), rel=1e-12)


def test_gaussian_divergence_is_of_the_first_kl_samples() -> None:
    method = built(divergence="gaussian", kl_samples=4, likelihood_samples=6)
    drawn = method.draw(NOISE)
    expected = gaussian_moment_kl(first(drawn.means, 4), PRIOR)
    assert method.divergence(drawn).item() == pytest.approx(expected.item(), rel=1e-12)


CHOSEN = {"divergence": "discriminator", "discriminator": {"hidden": (5, 4), "weights": 20}, "kl_samples": 4}
SIZE = NETWORK.size


def chosen(drawn: Any, purpose: str, weights: int = 20) -> Tensor:
    return torch.cat(first(drawn.means, 4), dim=1)[:, NOISE.places(purpose, weights, SIZE)]


def test_discriminator_divergence_is_the_scaled_sum_of_logits_of_some_weights() -> None:
    """For 20 of 58 weights, and for all of them; 6 samples are drawn, 4 are for the KL."""
    assert SIZE == 58
    for weights in (20, 100):
        method = built(**CHOSEN | {"discriminator": {"hidden": (5, 4), "weights": weights}})
        drawn = method.draw(NOISE)
        assert method.discriminator is not None
        logits = method.discriminator(chosen(drawn, "discriminator", weights))
        assert logits.shape == (4, min(weights, SIZE))
        expected = logits.mean() * SIZE
        assert method.divergence(drawn).item() == pytest.approx(expected.item(), rel=1e-12)


def test_adapting_is_a_step_of_the_discriminator_on_the_first_kl_samples_and_the_scaled_prior() -> None:
    method, other = built(**CHOSEN), built(**CHOSEN)
    drawn = method.draw(NOISE)
    before = [parameter.detach().clone() for parameter in method.parameters()]
    method.adapt(drawn)
    prior = PRIOR * NOISE.after(0, 4).normal("discriminator/prior", 20)
    assert method.discriminator is not None
    assert other.discriminator is not None
    other.discriminator.fit(chosen(drawn, "discriminator/fit"), prior, (80, 80))
    assert torch.equal(method.discriminator.flat, other.discriminator.flat)
    assert not torch.equal(method.discriminator.flat, built(**CHOSEN).discriminator.flat)
    assert all(map(torch.equal, method.parameters(), before))


def test_estimates_from_some_weights_have_the_mean_of_the_one_from_all() -> None:
    """n = 600 steps; tolerance 4 standard errors, which have to be small beside the value."""
    method = built(**CHOSEN)
    drawn = method.draw(NOISE)
    assert method.discriminator is not None
    logits = method.discriminator(torch.cat(first(drawn.means, 4), dim=1)).mean(0).detach()
    steps = [NOISE.__class__(**vars(NOISE) | {"step": step}) for step in range(600)]
    estimates = torch.stack([logits[noise.places("discriminator", 20, SIZE)].mean() * SIZE for noise in steps])
    error = estimates.std().item() / math.sqrt(600)
    assert error < 0.02 * logits.abs().sum().item()
    assert estimates.mean().item() == pytest.approx(logits.sum().item(), abs=4 * error)


def test_fewer_drawn_samples_than_kl_samples_are_all_used() -> None:
    method = built(kl_samples=50)
    drawn = method.draw(NOISE)
    few = built(kl_samples=6)
    assert method.config.semi_implicit.inner_samples is None
    torch.testing.assert_close(method.divergence(drawn), few.divergence(few.draw(NOISE)), rtol=0, atol=0)


class OneOfTwo(Group):
    """A worker that hears zeros from the other one; `events` has what it does, in order."""

    events: ClassVar[list[str]] = []

    def _add_up(self, tensor: Tensor) -> Any:
        self.events.append("sum begun")
        return UnderWay("summed")

    def _swap(self, received: Tensor, sent: Tensor, incoming: list[int], outgoing: list[int]) -> Any:
        self.events.append("sent")
        received.zero_()
        return UnderWay("received")


@dataclass
class UnderWay:
    """Says when it is waited for."""

    event: str

    def wait(self) -> None:
        OneOfTwo.events.append(self.event)


@pytest.mark.parametrize("divergence", ["semi_implicit", "knn", "knn_marginal", "gaussian"])
def test_weights_and_their_gradients_travel_while_the_divergence_is_computed(divergence: str) -> None:
    """The divergence is seen forwards by its sum over workers, which is under way while the network is evaluated, and
    backwards by what its terms kept for that.
    """
    method = built(Shards(OneOfTwo(0, 2)), divergence=divergence)
    of_method, events = method.begin_divergence, OneOfTwo.events

    def seen(drawn: Any) -> Callable[[], Tensor]:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: tensor, lambda tensor: events.append("kept") or tensor
        ):
            return of_method(drawn)

    def evaluated(*given: Any) -> Tensor:
        logits = of_forward(*given)
        events.append("evaluated")
        return logits

    method.begin_divergence = seen  # type: ignore[method-assign]
    of_forward, method.forward = method.forward, evaluated  # type: ignore[method-assign]
    events.clear()
    inputs, labels = torch.randn(4, 7, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    drawn, share = method.draw(NOISE), SampleShare(2, 2, 0)
    loss = objective(method, method.config, inputs, labels, drawn, share, batch=4, examples=4, kl_weight=1.0)
    assert events == ["sent", "sum begun", "received", "evaluated", "summed"]
    events.clear()
    loss.part.backward()
    assert events[0] == "sent"
    assert events[-1] == "received"
    assert set(events[1:-1]) == {"kept"}
