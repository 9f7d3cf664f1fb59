"""Linear layers by oneDNN against double precision, as where a processor has a slow MKL and as elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist import products
from bbh_dist.products import linear, sampled_linear

ONEDNN = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch was built without oneDNN's linear layer"
)
LARGE = (120, 160, 70)
"""Batch, inputs and outputs of products that oneDNN is given."""
LAYOUTS: dict[str, Callable[[int, int], Tensor]] = {
    "dense": lambda rows, columns: torch.randn(rows, columns),
    "transposed": lambda rows, columns: torch.randn(columns, rows).T,
    "one row many times": lambda rows, columns: torch.randn(1, columns).expand(rows, columns),
    "one number": lambda rows, columns: torch.randn(()).expand(rows, columns),
    "every other column": lambda rows, columns: torch.randn(rows, 2 * columns)[:, ::2],
    "every other row, from the second column": lambda rows, columns: torch.randn(2 * rows, columns + 1)[::2, 1:],
}


@pytest.fixture(autouse=True)
def slow_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_has_slow_mkl", lambda: True)
    torch.manual_seed(0)


def assert_near(result: Tensor, exact: Tensor) -> None:
    """As near as float32 sums of some hundred numbers are."""
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=3e-6 * float(exact.detach().abs().max()))


def gradients(layer: Callable, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """By all inputs, of a randomly weighted sum, and of the squares of those gradients."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    result = layer(*inputs)
    cotangent = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.dtype)
    first = torch.autograd.grad((result * cotangent).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(gradient.square().mean() for gradient in first[:2]), inputs[:2])
    return (*first, *second)


@ONEDNN
@pytest.mark.parametrize("x_layout", LAYOUTS)
@pytest.mark.parametrize("weight_layout", LAYOUTS)
def test_layouts(x_layout: str, weight_layout: str) -> None:
    batch, inputs, outputs = LARGE
    x, weight = LAYOUTS[x_layout](batch, inputs), LAYOUTS[weight_layout](outputs, inputs)
    for bias in (None, torch.randn(outputs), torch.randn(1).expand(outputs), torch.randn(2 * outputs)[1::2]):
        exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
        assert_near(linear(x, weight, bias), exact)


@ONEDNN
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_gradients(lead: tuple[int, ...]) -> None:
    batch, inputs, outputs = LARGE
    given = [torch.randn(*lead, batch, inputs), torch.randn(outputs, inputs), torch.randn(outputs)]
    found, exact = gradients(linear, given), gradients(F.linear, [tensor.double() for tensor in given])
    for gradient, of_double in zip(found, exact, strict=True):
        assert_near(gradient, of_double)
    assert linear(*given).shape == (*lead, batch, outputs)


@ONEDNN
def test_a_gradient_that_is_one_number() -> None:
    x, weight = torch.randn(120, 160, requires_grad=True), torch.randn(70, 160, requires_grad=True)
    linear(x, weight).sum().backward()
    assert_near(x.grad, weight.double().sum(0).expand(120, -1))
    assert_near(weight.grad, x.double().sum(0).expand(70, -1))


@ONEDNN
@pytest.mark.parametrize("samples_of_x", [1, 3])
def test_weight_samples(samples_of_x: int) -> None:
    batch, inputs, outputs = LARGE
    given = [torch.randn(samples_of_x, batch, inputs), torch.randn(3, outputs, inputs), torch.randn(3, outputs)]

    def exact(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.einsum("sbi,soi->sbo", x.expand(3, -1, -1), weight) + bias[:, None]

    assert_near(sampled_linear(*given), exact(*(tensor.double() for tensor in given)))
    of_double = gradients(exact, [tensor.double() for tensor in given])
    for gradient, expected in zip(gradients(sampled_linear, given), of_double, strict=True):
        assert_near(gradient, expected)


@ONEDNN
def test_biases_that_are_broadcast() -> None:
    x, weight = torch.randn(120, 160), torch.randn(70, 160)
    for bias in (torch.randn(()), torch.randn(1)):
        bias.requires_grad_()
        result = linear(x, weight, bias)
        assert_near(result, x.double() @ weight.double().T + bias.double())
        result.sum().backward()
        assert bias.grad.item() == pytest.approx(result.numel())
    shared = sampled_linear(x[None], torch.stack([weight, 2 * weight]), torch.ones(1, 70))
    assert_near(shared[1], 2 * (x.double() @ weight.double().T) + 1)


def test_no_samples_and_shapes_that_do_not_fit() -> None:
    assert sampled_linear(torch.randn(0, 120, 160), torch.randn(0, 70, 160), torch.randn(0, 70)).shape == (0, 120, 70)
    assert linear(torch.randn(2048), torch.randn(1024, 2048)).shape == (1024,)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(torch.randn(120, 160), torch.randn(70, 161))
    with pytest.raises(RuntimeError, match="expanded size"):
        linear(torch.randn(120, 160), torch.randn(70, 160), torch.randn(71))


@pytest.mark.parametrize("maker", ["GenuineIntel", "AuthenticAMD"])
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_which_processors_have_a_slow_mkl(
    maker: str, capability: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"processor : 0\nvendor_id : {maker}\n")
    monkeypatch.setattr(products, "_CPUINFO", facts)
    for name in ("mkl", "mkldnn"):
        monkeypatch.setattr(getattr(torch.backends, name), "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    expected = (maker, capability) == ("AuthenticAMD", "AVX512") and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    assert products._has_slow_mkl.__wrapped__() == expected


@ONEDNN
@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own flags set one that this build has not
def test_it_is_used_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it does not suit goes to torch: small products, other dtypes, tensors of shapes alone."""
    calls = []
    apply = products._Linear.apply
    monkeypatch.setattr(products._Linear, "apply", lambda *args: calls.append(args) or apply(*args))
    x, weight = torch.randn(120, 160), torch.randn(70, 160)
    linear(x, weight)
    assert len(calls) == 1
    with torch.backends.mkldnn.flags(enabled=False):
        linear(x, weight)
    linear(x[:10], weight)
    linear(x.double(), weight.double())
    linear(x.bfloat16(), weight.bfloat16())
    linear(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu"):
        assert linear(x, weight).dtype == torch.bfloat16
    monkeypatch.setattr(products, "_has_slow_mkl", lambda: False)
    linear(x, weight)
    assert len(calls) == 1
