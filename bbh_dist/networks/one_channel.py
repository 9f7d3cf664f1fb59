"""Convolutions of grey images that are themselves differentiated, as in attacks: there the library is slow."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class OneChannelConv2d(torch.autograd.Function):
    """(B, O, H', W') of images (B, 1, H, W) and a kernel (O, 1, K, K), with a gradient for the images alone.

    That gradient is a matrix product, then a sum of overlapping patches. LeNet's first layer, 100 images, one core:
    1.5 ms, and 6.6 ms by the library, which takes longer for this than for all the rest of the backward pass. With
    three channels both take the same time.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        """The convolution."""
        ctx.save_for_backward(kernel)
        ctx.size, ctx.stride, ctx.padding = images.shape[2:], stride, padding
        return F.conv2d(images, kernel, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """The images' gradient."""
        (kernel,) = ctx.saved_tensors
        patches = kernel.flatten(1).mT @ gradient.flatten(2)
        images = F.fold(patches, ctx.size, kernel.shape[2:], padding=ctx.padding, stride=ctx.stride)
        return images, None, None, None, None


def suits(images: Tensor, kernel: Tensor) -> bool:
    """Whether the images (..., 1, H, W), and they alone, are to be differentiated."""
    return torch.is_grad_enabled() and images.requires_grad and images.shape[-3] == 1 and not kernel.requires_grad
