"""Layers whose weights are samples: S weight samples in one call, activations (S, B, ...).

A sample axis of 1 means that all samples share the input, or the weights. The way is chosen for the device, by
measurement (2 CPU cores, LeNet's convolutions, S = 5, B = 100, forward and backward): a loop over samples 58 ms,
grouped convolution 83 ms, unfold and batched matrix product 203 ms, the loop with channels-last images 33 ms. Dense
layers: batched product 36 ms against a loop's 101 ms at S = 20. On CUDA one grouped convolution replaces S small
kernels (not measured yet).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.networks.layers import Dense, LayerSpec
from bbh_dist.networks.network import Layer
from bbh_dist.networks.one_channel import OneChannelConv2d, suits
from bbh_dist.products import linear, sampled_linear


def sampled_layers(layers: Mapping[str, LayerSpec], weights: Mapping[str, Tensor]) -> Layer:
    """The function `layer(name, x)` over weight samples, each tensor (S or 1, *shape), named LAYER.weight or .bias."""

    def layer(name: str, x: Tensor) -> Tensor:
        spec, kernel = layers[name], weights[f"{name}.weight"]
        if isinstance(spec, Dense):
            return dense(x, kernel, weights[f"{name}.bias"])
        bias = weights[f"{name}.bias"] if spec.bias else None
        return conv2d(x, kernel, bias, spec.stride, spec.padding)

    return layer


def dense(x: Tensor, weight_SOI: Tensor, bias_SO: Tensor) -> Tensor:
    """(S, B, O) of inputs (S or 1, B, I)."""
    if weight_SOI.shape[0] == 1:
        # Squeezed, not indexed: the gradient of an index is a copy in zeros.
        return linear(x, weight_SOI.squeeze(0), bias_SO.squeeze(0))
    return sampled_linear(x, weight_SOI, bias_SO)


def conv2d(x: Tensor, weight_SOCKK: Tensor, bias_SO: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """(S, B, O, H', W') of inputs (S or 1, B, C, H, W)."""
    samples = weight_SOCKK.shape[0]
    if samples == 1 and x.shape[0] > 1:
        return _shared_conv2d(x, weight_SOCKK, bias_SO, stride, padding)
    if x.device.type == "cuda":
        return _grouped_conv2d(x, weight_SOCKK, bias_SO, stride, padding)
    # Unbound, not indexed: the gradient of an index is as large as all samples together.
    images = x.expand(samples, *x.shape[1:]).unbind()
    biases = [None] * samples if bias_SO is None else bias_SO.unbind()
    convolve = OneChannelConv2d.apply if suits(x, weight_SOCKK) else F.conv2d
    outputs = [
        convolve(_channels_last(image), kernel, bias, stride, padding)
        for image, kernel, bias in zip(images, weight_SOCKK.unbind(), biases, strict=True)
    ]
    # A concatenation copies, even of one tensor.
    return outputs[0][None] if samples == 1 else torch.cat(outputs).unflatten(0, (samples, x.shape[1]))


def max_pool(x: Tensor, size: int) -> Tensor:
    """(S, B, C, H / size, W / size) maxima of (S, B, C, H, W)."""
    return F.max_pool2d(x.flatten(0, 1), size).unflatten(0, x.shape[:2])


def _shared_conv2d(x: Tensor, weight_1OCKK: Tensor, bias_1O: Tensor | None, stride: int, padding: int) -> Tensor:
    bias = None if bias_1O is None else bias_1O.squeeze(0)
    images = x.flatten(0, 1) if x.device.type == "cuda" else _channels_last(x.flatten(0, 1))
    result = F.conv2d(images, weight_1OCKK.squeeze(0), bias, stride, padding)
    return result.unflatten(0, x.shape[:2])


def _channels_last(images_BCHW: Tensor) -> Tensor:
    """The same images with channels last in memory.

    Of a single channel either order is the same memory, and torch takes strides that don't say for channels first; so
    does what follows. Pooling of LeNet's first layer takes ten times as long then (2.2 against 0.2 ms).
    """
    if images_BCHW.shape[1] > 1:
        return images_BCHW.contiguous(memory_format=torch.channels_last)
    count, _, height, width = images_BCHW.shape
    return images_BCHW.reshape(count, height, width, 1).permute(0, 3, 1, 2)


def _grouped_conv2d(
    x: Tensor, weight_SOCKK: Tensor, bias_SO: Tensor | None = None, stride: int = 1, padding: int = 0
) -> Tensor:
    samples, outputs = weight_SOCKK.shape[:2]
    shared = x.shape[0] == 1
    images = x[0] if shared else x.transpose(0, 1).flatten(1, 2)
    bias = None if bias_SO is None else bias_SO.flatten()
    groups = 1 if shared else samples
    result = F.conv2d(images, weight_SOCKK.flatten(0, 1), bias, stride, padding, groups=groups)
    return result.unflatten(1, (samples, outputs)).transpose(0, 1)
