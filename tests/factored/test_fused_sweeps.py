"""The sweep for GPUs, compiled for the CPU: the same function, and nearly the same code by inductor."""

import dataclasses

import pytest
import torch
from layers import RULES, Layer

from bbh_dist.factored import fused, reference


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_compiled_sweeps_equal_the_reference(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    layers = [Layer(RULES[name], weight_dtype=torch.bfloat16, second_dtype=torch.bfloat16) for _ in range(2)]
    for step in range(1, 4):
        rule = dataclasses.replace(RULES[name], step=step, lr=0.01 * step)
        first, second = (
            way.sweep(layer.weight, layer.state, layer.gradients, layer.features, rule, 3, 1, True)
            for way, layer in zip((fused, reference), layers, strict=True)
        )
        torch.testing.assert_close(first, second)
    for ours, theirs in zip(layers[0].tensors(), layers[1].tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-5)
        assert (ours == theirs).float().mean() > 0.99 or ours.dtype == torch.float32
    assert fused.available()
    assert capsys.readouterr().err == ""


def test_what_cannot_be_compiled_is_swept_by_the_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no\ntriton")

    monkeypatch.setattr(fused, "_compiled", lambda rule: fail)
    monkeypatch.setattr(fused, "_failed", False)
    ours, theirs = Layer(RULES["adam"]), Layer(RULES["adam"])
    for _ in range(2):
        for way, layer in ((fused, ours), (reference, theirs)):
            way.sweep(layer.weight, layer.state, layer.gradients, layer.features, layer.rule, 0, 0, False)
    assert all(torch.equal(one, two) for one, two in zip(ours.tensors(), theirs.tensors(), strict=True))
    assert capsys.readouterr().err.splitlines() == [
        "bbh_dist: sweeps in plain torch, several times slower: torch.compile failed: no triton"
    ]
    assert not fused.available()
