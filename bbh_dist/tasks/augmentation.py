"""Random changes of training images, batch by batch on the device of the data, and what test images go through.

Changes are keyed by seed, epoch, an ensemble's member and the example's index, so they do not depend on batches or
workers.
Legend: M members, B batch, N training examples, C channels.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from bbh_dist.noise import keyed_generator

_BRIGHTNESS = 63.0
_CONTRAST = (0.2, 1.8)
_CHANGES = 5
"""Numbers per example: row, column, flip, brightness, contrast."""


@dataclass(frozen=True)
class Augmentation:
    """Images of bytes (B, C, H, W): padded, cropped to `side`, flipped, brightened, stretched and standardised.

    As TensorFlow's tutorial on CIFAR-10 does, with pixels from 0 to 255: zeros around the image up to `padded`, a
    random crop, a horizontal flip of every second one, a brightness within 63, a contrast factor in [0.2, 1.8] around
    each channel's mean. A test image is its central crop, standardised.
    """

    channels: int = 3
    side: int = 24
    padded: int = 36

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image that comes out."""
        return (self.channels, self.side, self.side)

    def plain(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Central crops (B, C, side, side), standardised."""
        top, left = ((size - self.side) // 2 for size in images.shape[2:])
        return standardised(images[..., top : top + self.side, left : left + self.side].to(dtype))

    def augmented(
        self,
        images: Tensor,
        indices: Tensor,
        examples: int,
        seed: int,
        epoch: int,
        dtype: torch.dtype,
        members: range = range(1),
    ) -> Tensor:
        """Training images (M * B, C, side, side), of the examples `indices` (M, B) out of `examples`, in an epoch.

        Each of the M `members`, models that share nothing, has changes of its own.
        """
        numbers = _uniform(seed, epoch, members, examples, images.device)
        uniform = torch.cat([of_member[own] for of_member, own in zip(numbers, indices, strict=True)])
        row, column, flip, brightness, contrast = uniform.unbind(1)
        crops = self._cropped(images, row, column, flip < 0.5).to(dtype)
        # Standardisation takes a brightness away again; it stands here because the original has it.
        crops = crops + _column(_BRIGHTNESS * (2 * brightness - 1), dtype)
        means = crops.mean((2, 3), keepdim=True)
        factors = _column(_CONTRAST[0] + (_CONTRAST[1] - _CONTRAST[0]) * contrast, dtype)
        return standardised((crops - means) * factors + means)

    def _cropped(self, images: Tensor, row: Tensor, column: Tensor, flip: Tensor) -> Tensor:
        """A crop of each padded image; `row` and `column` in [0, 1) say which, those that `flip` says are mirrored."""
        vertical, horizontal = (self.padded - size for size in images.shape[2:])
        edges = (horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2)
        places = self.padded - self.side + 1
        steps = torch.arange(self.side, device=images.device)
        rows = (row * places).long()[:, None] + steps
        columns = (column * places).long()[:, None] + torch.where(flip[:, None], steps.flip(0), steps)
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        # Indices around a slice put the channels last.
        return F.pad(images, edges)[batch, :, rows[:, :, None], columns[:, None]].movedim(-1, 1)


def standardised(images: Tensor) -> Tensor:
    """Each image of pixels from 0 to 255 with mean 0 and standard deviation 1, at most stretched by sqrt(pixels).

    Source: TensorFlow's per_image_standardization; its pixels are the numbers of an image, channels included.
    """
    pixels = images[0].numel() if len(images) else 1
    means = images.mean((1, 2, 3), keepdim=True)
    deviations = (images - means).square().mean((1, 2, 3), keepdim=True).sqrt()
    return (images - means) / deviations.clamp_min(pixels**-0.5)


@lru_cache(maxsize=1)
def _uniform(seed: int, epoch: int, members: range, examples: int, device: torch.device) -> Tensor:
    """(M, N, 5) numbers in [0, 1) of an epoch, of which each example has a row; kept for the epoch's other steps."""
    key = ("augmentation", seed, epoch)
    generators = [keyed_generator(*key, *([member] if member else [])) for member in members]
    return torch.stack([torch.rand(examples, _CHANGES, generator=each) for each in generators]).to(device)


def _column(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype)[:, None, None, None]
