"""Sweeps and products against torch.optim and the stored gradient, by the C kernel and by the reference."""

import dataclasses
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import RULES, Layer

from bbh_dist import factored
from bbh_dist.factored import Rule, compiled, reference
from bbh_dist.factored.build import library

needs_compiler = pytest.mark.skipif(library() is None, reason="the kernel needs a C compiler, none was found")
WAYS = [pytest.param(compiled, id="compiled", marks=needs_compiler), pytest.param(reference, id="reference")]
OPTIMIZERS = {
    "rmsprop": lambda tensors: torch.optim.RMSprop(tensors, lr=1e-2, alpha=0.9, eps=1e-5),
    "adam": lambda tensors: torch.optim.Adam(tensors, lr=1e-2),
    "sgd": lambda tensors: torch.optim.SGD(tensors, lr=1e-2, momentum=0.9),
}
ROWS, COLUMNS, SAMPLES = [0, 1, 3, 4, 37, 101], [1, 7, 16, 100, 512], [1, 2, 5, 64]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if request.param is reference:
        monkeypatch.setattr(compiled, "library", lambda: None)
    return request.param


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_sweeps_are_steps_of_torchs_optimisers(
    way: ModuleType, name: str, dtype: torch.dtype, tolerance: float
) -> None:
    layer = Layer(RULES[name], weight_dtype=dtype)
    state = factored.new_state(layer.weight, layer.rule)
    parameter = torch.nn.Parameter(layer.weight.clone())
    optimizer = OPTIMIZERS[name]([parameter])
    random = torch.Generator().manual_seed(1)
    for step in range(1, 101):
        gradients = 0.1 * torch.randn(5, 37, generator=random, dtype=dtype)
        features = torch.randn(5, 48, generator=random, dtype=dtype)
        factored.sweep(layer.weight, state, gradients, features, dataclasses.replace(layer.rule, step=step))
        parameter.grad = gradients.T @ features
        optimizer.step()
    torch.testing.assert_close(layer.weight, parameter.detach(), rtol=tolerance, atol=tolerance)
    for entry, value in state.items():
        torch.testing.assert_close(value, optimizer.state[parameter][entry], rtol=10 * tolerance, atol=tolerance)


@needs_compiler
@settings(max_examples=80, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(sorted(RULES)),
    shape=st.tuples(st.sampled_from(SAMPLES), st.sampled_from(ROWS), st.sampled_from(COLUMNS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    transposed=st.booleans(),
    with_feature_gradient=st.booleans(),
)
def test_the_kernel_equals_the_reference_for_every_shape(
    name: str, shape: tuple[int, int, int], dtype: torch.dtype, transposed: bool, with_feature_gradient: bool
) -> None:
    # Sums of 512 terms of order 1 in another order: at most 5e-5 and 9e-14 over all of these shapes.
    near = {"rtol": 0, "atol": 1e-4 if dtype == torch.float32 else 1e-12}
    S, D, F = shape
    found = []
    for way in (compiled, reference):
        layer = Layer(RULES[name], S=S, D=D, F=F, weight_dtype=dtype, transposed=transposed)
        bias = layer.gradients[0].contiguous()
        outputs = way.product(layer.features, layer.weight, bias)
        alone = way.feature_gradient(layer.gradients, layer.weight)
        gradient = way.sweep(
            layer.weight, layer.state, layer.gradients, layer.features, layer.rule, 3, 1, with_feature_gradient
        )
        if with_feature_gradient:
            torch.testing.assert_close(gradient, alone, **near)
        assert (gradient is not None) == with_feature_gradient
        found.append([outputs, alone, *layer.tensors()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **near)


@pytest.mark.parametrize("name", RULES)
def test_the_feature_gradient_is_that_of_the_old_weights(way: ModuleType, name: str) -> None:
    layer = Layer(RULES[name])
    expected = layer.gradients @ layer.weight
    found = factored.sweep(layer.weight, layer.state, layer.gradients, layer.features, layer.rule)
    torch.testing.assert_close(found, expected)


def test_products_are_linear_layers(way: ModuleType) -> None:
    layer = Layer(RULES["sgd"], S=13, weight_dtype=torch.bfloat16)
    bias = torch.arange(37.0)
    expected = torch.nn.functional.linear(layer.features, layer.weight.float(), bias)
    torch.testing.assert_close(factored.product(layer.features, layer.weight, bias), expected)
    assert factored.product(layer.features, layer.weight[:0], bias[:0]).shape == (13, 0)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(S=st.sampled_from(SAMPLES), D=st.sampled_from(ROWS), F=st.sampled_from(COLUMNS))
def test_the_norm_is_that_of_the_stored_gradient(S: int, D: int, F: int) -> None:
    layer = Layer(RULES["sgd"], S=S, D=D, F=F)
    stored = (layer.gradients.double().T @ layer.features.double()).square().sum()
    torch.testing.assert_close(factored.squared_norm(layer.gradients, layer.features), stored)


@needs_compiler
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_threads_change_no_bit(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_TASK_WEIGHTS", 1)  # tasks of 64 rows
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        layer = Layer(rule, D=1003, second_dtype=torch.bfloat16)
        gradient = factored.sweep(layer.weight, layer.state, layer.gradients, layer.features, rule)
        outputs = factored.product(layer.features, layer.weight, torch.zeros(1003))
        found.append([gradient, outputs, *layer.tensors()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_stays_so_and_stays_where_it_is(
    way: ModuleType, name: str, weight_dtype: torch.dtype
) -> None:
    layer = Layer(RULES[name], weight_dtype=weight_dtype, second_dtype=torch.bfloat16)
    layer.gradients[1, 4] = torch.nan
    layer.weight[7, 45] = torch.nan
    layer.weight[8, 46] = -torch.inf
    gradient = factored.sweep(layer.weight, layer.state, layer.gradients, layer.features, layer.rule)
    assert gradient is not None
    expected = torch.zeros(37, 48, dtype=torch.bool)
    expected[4] = True
    assert all(torch.equal(value.isnan(), expected) for value in layer.state.values())
    expected[7, 45] = True
    assert torch.equal(layer.weight.isnan(), expected)
    assert layer.weight[8, 46] == -torch.inf
    assert layer.weight.isinf().sum() == 1
    assert gradient[1].isnan().all()
    assert gradient[0].isnan().nonzero().tolist() == [[45]]


def test_what_does_not_fit_is_refused() -> None:
    layer = Layer(RULES["adam"])
    with pytest.raises(ValueError, match=r"weight \(37, 48\), gradients \(5, 36\), features \(5, 48\)"):
        factored.sweep(layer.weight, layer.state, layer.gradients[:, 1:], layer.features, layer.rule)
    with pytest.raises(ValueError, match=r"features \(4, 48\): features is not \(S, F\)"):
        factored.sweep(layer.weight, layer.state, layer.gradients, layer.features[:4], layer.rule)
    with pytest.raises(ValueError, match="square_avg"):
        factored.sweep(layer.weight, layer.state, layer.gradients, layer.features, RULES["rmsprop"])
    with pytest.raises(ValueError, match=r"bias \(36,\)"):
        factored.product(layer.features, layer.weight, torch.zeros(36))
    with pytest.raises(ValueError, match=r"\(5, 37\).*\(4, 48\)"):
        factored.squared_norm(layer.gradients, layer.features[:4])
