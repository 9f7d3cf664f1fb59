"""Gradients against closed forms and finite differences; what an attack may change, and what it achieves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from bbh_dist.config import Attacks, BbhMethod, DropoutMethod, Evaluation, Experiment, Generator, MapMethod
from bbh_dist.evaluation import Prediction, measure, predict, robustness
from bbh_dist.evaluation.attacks import fgsm, loss_gradient, pgd
from bbh_dist.evaluation.robustness import attack_curve
from bbh_dist.methods import Method, build_method
from bbh_dist.networks import build_network
from bbh_dist.networks.mlp import MLP
from bbh_dist.networks.one_channel import OneChannelConv2d, suits
from bbh_dist.noise import Noise, keyed_generator
from bbh_dist.sharding import Workers
from bbh_dist.tasks import Split, load_task
from bbh_dist.training import Trainer

MAP = MapMethod(name="map")
BBH = {
    kind: BbhMethod(name="bbh", generator=Generator(kind=kind, hidden=(6,), noise_dim=3))
    for kind in ("single", "layerwise")
}
EPSILONS = (0.03, 0.1, 0.25)
RANGE = (0.0, 1.0)


def noise(samples: int) -> Noise:
    return Noise(4, "attack", 2, range(samples), dtype=torch.float64)


def split(examples: int, classes: int = 4) -> Split:
    random = torch.Generator().manual_seed(1)
    labels = torch.randint(classes, (examples,), generator=random)
    return Split(torch.rand(examples, 3, dtype=torch.float64, generator=random), labels)


def method(config: BbhMethod | MapMethod, hidden: tuple[int, ...] = (), classes: int = 4) -> Method:
    """A linear softmax model by default."""
    return build_method(config, MLP((3,), classes, hidden), keyed_generator("initial")).double()


@torch.no_grad()
def mean_loss(of: Method, data: Split, samples: int) -> Tensor:
    """(N,): -log p(label) of each weight sample, averaged over samples."""
    logits = of(data.inputs, of.draw(noise(samples)))
    every = [cross_entropy(sample, data.labels, reduction="none") for sample in logits]
    return torch.stack(every).mean(0)


@pytest.mark.parametrize("config", [MAP, *BBH.values()])
def test_the_gradient_of_a_linear_model_is_known(config: BbhMethod | MapMethod) -> None:
    """Of one sample it is (p - one-hot) W."""
    of, data = method(config), split(7)
    found = loss_gradient(of, data, noise(5))
    drawn = of.draw(noise(5))
    weights = of.weights[0][None] if config is MAP else of._weights(drawn, 5)[0].unflatten(1, (4, 3))  # type: ignore
    with torch.no_grad():
        surplus = of(data.inputs, drawn).softmax(-1) - torch.nn.functional.one_hot(data.labels, 4)
        torch.testing.assert_close(found, (surplus @ weights).mean(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("config", [MAP, *BBH.values()])
def test_the_gradient_equals_finite_differences(config: BbhMethod | MapMethod) -> None:
    """Central differences of step 1e-6: their error is of order 1e-10 where no ReLU changes sides."""
    of, data = method(config, hidden=(5,)), split(6)
    found = loss_gradient(of, data, noise(4))
    for feature in range(3):
        change = 1e-6 * torch.eye(3, dtype=torch.float64)[feature]
        above, below = (mean_loss(of, Split(data.inputs + sign * change, data.labels), 4) for sign in (1, -1))
        torch.testing.assert_close(found[:, feature], (above - below) / 2e-6, rtol=0, atol=1e-8)


@pytest.mark.parametrize("config", [MAP, *BBH.values()])
def test_parameters_are_left_as_they_were(config: BbhMethod | MapMethod) -> None:
    of = method(config, hidden=(5,))
    before = {name: value.clone() for name, value in of.state_dict().items()}
    next(iter(of.parameters())).requires_grad_(False)
    loss_gradient(of, split(3), noise(4))
    assert [parameter.requires_grad for parameter in of.parameters()] == [False] + [True] * (len(before) - 1)
    assert all(parameter.grad is None for parameter in of.parameters())
    assert all(torch.equal(value, before[name]) for name, value in of.state_dict().items())


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize(("samples", "examples"), [(1, 20), (3, 20), (4, 450), (23, 7)])
def test_the_parts_of_workers_add_up(workers: int, samples: int, examples: int) -> None:
    """Workers without a group behind them; real ones are tested with training."""
    of, data = method(BBH["single"], hidden=(5,)), split(examples)
    parts = [loss_gradient(of, data, noise(samples), Workers(rank, workers)) for rank in range(workers)]
    torch.testing.assert_close(sum(parts), loss_gradient(of, data, noise(samples)), rtol=0, atol=1e-12)


def test_fgsm_of_two_classes_goes_the_way_of_the_difference_of_their_weights() -> None:
    of, data = method(MAP, classes=2), split(40, classes=2)
    found = fgsm(of, data, EPSILONS, RANGE, noise(1))
    away = torch.stack([of.weights[0][1] - of.weights[0][0], of.weights[0][0] - of.weights[0][1]])[data.labels]
    for epsilon, images in zip(EPSILONS, found, strict=True):
        assert torch.equal(images, (data.inputs + epsilon * away.sign()).clamp(0, 1))


def test_pgd_of_two_classes_ends_where_fgsm_does() -> None:
    """The gradient's sign is the same everywhere, and four steps of a quarter are one of eps."""
    of, data = method(MAP, classes=2), split(40, classes=2)
    found = pgd(of, data, EPSILONS, RANGE, noise(1), 4, 0.25)
    torch.testing.assert_close(found, fgsm(of, data, EPSILONS, RANGE, noise(1)), rtol=0, atol=1e-12)
    short = pgd(of, data, EPSILONS, RANGE, noise(1), 2, 0.25)
    halves = fgsm(of, data, [epsilon / 2 for epsilon in EPSILONS], RANGE, noise(1))
    torch.testing.assert_close(short, halves, rtol=0, atol=1e-12)


@pytest.mark.parametrize("step", [0.25, 3.0])
def test_pgd_stays_in_the_ball_and_among_pixels(step: float) -> None:
    of, data = method(BBH["single"], hidden=(5,)), split(50)
    found = pgd(of, data, EPSILONS, RANGE, noise(3), 7, step)
    largest = (found - data.inputs).abs().amax((1, 2))
    torch.testing.assert_close(largest, torch.tensor(EPSILONS, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (found.min(), found.max()) == (0, 1)


def test_every_step_of_pgd_has_weight_samples_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    of, seen = method(BBH["single"]), []
    draw = of.draw

    def noted(of_noise: Noise) -> object:
        seen.extend((of_noise.purpose, of_noise.step, sample) for sample in of_noise.samples)
        return draw(of_noise)

    monkeypatch.setattr(of, "draw", noted)
    pgd(of, split(5), EPSILONS, RANGE, replace(noise(3), purpose="test"), 4, 0.25)
    assert seen == [("attack", 2, sample) for sample in range(12)]


@pytest.fixture(scope="module")
def trained() -> Trainer:
    """BbH on digits5, two seconds of training."""
    settings = {
        "task": "digits5",
        "network": "mlp:30",
        "method": {"name": "bbh", "generator": {"hidden": [16, 32]}},
        "optimizer": {"lr": 0.005, "schedule": "one_cycle"},
        "epochs": 12,
        "batch_size": 50,
        "evaluation": {
            "samples": 20,
            "epoch_samples": 2,
            "attacks": {"fgsm_examples": 10_000, "pgd_examples": 90, "fgsm_samples": 20, "pgd_samples": 5},
        },
    }
    trainer = Trainer(Experiment.model_validate(settings), load_task("digits5", Path(".")))
    while not trainer.done:
        trainer.run_epoch()
    return trainer


@pytest.fixture(scope="module")
def tested(trained: Trainer) -> tuple[dict[str, float], dict[str, Any]]:
    """What the run's test reports: measures and curves."""
    return trained.test()


def test_pgd_is_at_least_as_strong_as_fgsm(trained: Trainer) -> None:
    """By the loss that both want to raise; eight steps of a quarter of eps, of fewer weight samples than FGSM has."""
    test = trained.task.test
    judged = Noise(0, "test", 12, range(50))
    attacked = {
        "fgsm": fgsm(trained.method, test, EPSILONS, RANGE, replace(judged, samples=range(20))),
        "pgd": pgd(trained.method, test, EPSILONS, RANGE, replace(judged, samples=range(10)), 8, 0.25),
    }
    nll = {
        name: [measure(predict(trained.method, some, judged), test.labels)["nll"] for some in images]
        for name, images in attacked.items()
    }
    clean = measure(predict(trained.method, test.inputs, judged), test.labels)["nll"]
    assert clean < nll["fgsm"][0] < nll["fgsm"][1] < nll["fgsm"][2]
    # At eps of a few hundredths the loss is nearly linear, and both find the same corner.
    assert nll["pgd"][0] > 0.999 * nll["fgsm"][0]
    assert nll["pgd"][1] > nll["fgsm"][1]
    assert nll["pgd"][2] > 1.05 * nll["fgsm"][2]


def test_a_final_run_reports_its_attacks(trained: Trainer, tested: tuple[dict[str, float], dict[str, Any]]) -> None:
    metrics, curves = tested
    assert trained.test() == tested
    attacked = {name: value for name, value in metrics.items() if name.startswith("adversarial/")}
    assert len(attacked) == 2 * 3 * 9
    assert attacked["adversarial/fgsm/error@0"] == metrics["test/error"]
    assert attacked["adversarial/fgsm/entropy_auc@0"] == metrics["test/entropy_auc"]
    assert curves["method"] == "bbh-single"
    for name, examples in (("fgsm", 180), ("pgd", 90)):
        curve = curves["attacks"][name]
        assert curve["examples"] == examples
        assert curve["error"] == [attacked[f"adversarial/{name}/error@{epsilon:g}"] for epsilon in curve["epsilons"]]
        assert curve["accuracy"] == [100 - error for error in curve["error"]]
        assert curve["error"][0] < 10 < 90 < curve["error"][-1]


def test_attacked_images_are_judged_by_the_samples_of_the_test(
    trained: Trainer, tested: tuple[dict[str, float], dict[str, Any]]
) -> None:
    """Each eps by itself, from the parts that are tested above, gives what the run reports for all together."""
    first = Split(trained.task.test.inputs[:90], trained.task.test.labels[:90])
    judged = trained._noise("test", trained.epoch, 20)
    curve = tested[1]["attacks"]["pgd"]
    for place in (0, 3):
        epsilon = curve["epsilons"][place]
        images = pgd(trained.method, first, [epsilon], RANGE, replace(judged, samples=range(5)), 10, 0.25)[0]
        expected = measure(predict(trained.method, images, judged), first.labels)
        assert curve["error"][place] == expected["error"]
        assert curve["entropy"][place] == pytest.approx(expected["entropy"], rel=1e-4)


def test_dropouts_masks_are_those_of_the_clean_images_at_every_eps(trained: Trainer) -> None:
    """Images that are hardly changed give nearly the clean prediction; under other masks entropy differs by 5 %."""
    task = trained.task
    of = build_method(
        DropoutMethod(name="dropout"), build_network("mlp", task.input_shape, 5), keyed_generator("start")
    )
    judged = Noise(0, "test", 1, range(1))
    attacks = Attacks(fgsm_examples=3, fgsm_samples=2, epsilons=(0.0, 1e-4, 2e-4))
    clean = predict(of, task.test.inputs, judged)
    entropy = attack_curve("fgsm", of, task, clean, attacks, judged)["entropy"]
    assert entropy == pytest.approx([entropy[0]] * 3, rel=1e-3)


def test_nothing_is_attacked_unless_it_is_asked_for(trained: Trainer) -> None:
    clean = Prediction(torch.ones(180, 5) / 5, torch.zeros(180))
    assert robustness(trained.method, trained.task, clean, Evaluation(), noise(2)) == ({}, {})
    asked, unlimited = Evaluation(attacks=Attacks(fgsm_examples=1)), replace(trained.task, pixel_range=None)
    with pytest.raises(ValueError, match=r"^digits5 has no range of pixels that an attack could keep to$"):
        robustness(trained.method, unlimited, clean, asked, noise(2))


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1)])
def test_the_gradient_for_grey_images_is_the_librarys(stride: int, padding: int) -> None:
    random = torch.Generator().manual_seed(2)
    images, kernel, bias = (
        torch.randn(shape, dtype=torch.float64, generator=random) for shape in ((3, 1, 8, 7), (4, 1, 3, 3), (4,))
    )
    images.requires_grad_()
    assert suits(images[None], kernel)
    assert not suits(images[None], kernel.clone().requires_grad_())
    assert not suits(images.expand(3, 2, 8, 7)[None], kernel)
    found = OneChannelConv2d.apply(images, kernel, bias, stride, padding)
    expected = torch.nn.functional.conv2d(images, kernel, bias, stride, padding)
    assert torch.equal(found, expected)
    weights = torch.randn(found.shape, dtype=torch.float64, generator=random)
    gradients = [torch.autograd.grad((result * weights).sum(), images)[0] for result in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_the_gradient_through_lenet_equals_that_of_plain_layers() -> None:
    """In double precision, with parameters that ask for gradients, so that the library differentiates it."""
    of = build_method(MAP, build_network("lenet", (1, 16, 16), 3), keyed_generator("initial")).double()
    random = torch.Generator().manual_seed(3)
    data = Split(torch.rand(6, 1, 16, 16, dtype=torch.float64, generator=random), torch.arange(6) % 3)
    images = data.inputs.clone().requires_grad_()
    cross_entropy(of(images, None)[0], data.labels, reduction="sum").backward()
    torch.testing.assert_close(loss_gradient(of, data, noise(1)), images.grad, rtol=0, atol=1e-12)
