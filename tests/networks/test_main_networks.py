import math

import pytest
import torch
from torch import Tensor

from bbh_dist.networks import LeNet, build_network, sampled_layers


def shapes_seen(name: str, input_shape: tuple[int, ...], classes: int) -> dict[str, tuple[int, ...]]:
    """The shapes that reach a network's layers, from a stand-in for sampled layers."""
    network, seen = build_network(name, input_shape, classes), {}

    def layer(name: str, x: Tensor) -> Tensor:
        seen[name] = tuple(x.shape)
        spec = network.layers[name]
        side = () if x.dim() == 3 else tuple(length - spec.kernel + 1 for length in x.shape[3:])
        return torch.zeros(4, x.shape[1], spec.outputs, *side)

    logits = network(layer, torch.zeros(1, 2, *input_shape))
    assert logits.shape == (4, 2, classes)
    assert list(seen) == list(network.layers)
    return seen


def test_lenet_has_the_weights_of_the_paper() -> None:
    network = build_network("lenet", (1, 28, 28), 10)
    assert network.size == 431_080
    assert [tensor.shape for tensor in network.tensors if tensor.is_kernel] == [
        (20, 1, 5, 5),
        (50, 20, 5, 5),
        (500, 800),
        (10, 500),
    ]


@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 32, 22), (2, 16, 19)])
def test_lenet_fits_images_of_even_and_odd_sizes(input_shape: tuple[int, ...]) -> None:
    seen = shapes_seen("lenet", input_shape, 7)
    inputs = build_network("lenet", input_shape, 7).layers["dense1"].inputs
    assert seen["conv1"] == (1, 2, *input_shape)
    assert seen["dense1"] == (4, 2, inputs)


@pytest.mark.parametrize("input_shape", [(784,), (28, 28), (1, 15, 28), (1, 28, 15)])
def test_lenet_refuses_what_is_no_image_or_too_small(input_shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least 16 x 16, got"):
        LeNet(input_shape, 10)


@pytest.mark.parametrize(("name", "hidden"), [("mlp", [100]), ("mlp:7", [7]), ("mlp:64-32", [64, 32])])
def test_mlp_flattens_inputs_and_has_the_named_hidden_units(name: str, hidden: list[int]) -> None:
    seen = shapes_seen(name, (1, 8, 8), 5)
    assert list(seen.values()) == [(1, 2, 64), *((4, 2, units) for units in hidden)]
    units = [64, *hidden, 5]
    assert build_network(name, (1, 8, 8), 5).size == sum((units[i] + 1) * units[i + 1] for i in range(len(hidden) + 1))


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("lenet", ["conv2", "dense1", "dense2"]),
        ("mlp:64-32", ["dense2", "dense3"]),
        ("mlp", ["dense2"]),
        ("wrn-10-1", [f"stage{stage}.block1.conv2" for stage in (1, 2, 3)]),
        ("resnet18", [f"stage{stage}.block{block}.conv2" for stage in (1, 2, 3, 4) for block in (1, 2)]),
    ],
)
def test_dropout_acts_where_the_paper_has_it(name: str, dropped: list[str]) -> None:
    """After each convolution with its pooling and the first dense layer; between the convolutions of a unit."""
    assert list(build_network(name, (3, 17, 32), 5).dropped) == dropped


@pytest.mark.parametrize("name", ["mlp", "lenet", "preact-resnet", "resnet18", "wrn-10-1"])
def test_dropout_has_a_place_in_every_network(name: str) -> None:
    network = build_network(name, (3, 17, 32), 5)
    assert network.dropped
    assert set(network.dropped) < set(network.layers)


def test_scales_are_those_of_a_fresh_initialisation() -> None:
    scales = {tensor.name: tensor.scale for tensor in build_network("lenet", (1, 28, 28), 10).tensors}
    assert scales["conv2.weight"] == pytest.approx(math.sqrt(2 / 500))
    assert scales["conv2.bias"] == pytest.approx(math.sqrt(1 / 500))
    assert scales["dense1.weight"] == pytest.approx(math.sqrt(2 / 800))


@pytest.mark.parametrize("name", ["resnet", "wrn-28", "wrn-28-10-1", "wrn-x-1", "wrn--8-1"])
def test_unknown_network(name: str) -> None:
    with pytest.raises(ValueError, match=f"no network is named {name}"):
        build_network(name, (1, 28, 28), 10)


@pytest.mark.parametrize("name", ["mlp", "mlp:64-32", "lenet", "resnet18", "wrn-10-1", "wrn-28-10"])
@pytest.mark.parametrize("samples", [1, 3])
def test_networks_run_on_shapes_alone(name: str, samples: int) -> None:
    network = build_network(name, (3, 17, 32), 7)
    weights = {t.name: torch.empty(samples, *t.shape, device="meta", requires_grad=True) for t in network.tensors}
    logits = network(sampled_layers(network.layers, weights), torch.empty(1, 4, 3, 17, 32, device="meta"))
    assert (logits.device.type, logits.shape) == ("meta", (samples, 4, 7))
    gradients = torch.autograd.grad(logits.sum(), list(weights.values()))
    assert [gradient.shape for gradient in gradients] == [weight.shape for weight in weights.values()]
