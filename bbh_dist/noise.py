"""Random numbers keyed by what they are for, not by who draws them or when.

Every weight sample of every step has its own key (seed, purpose, step, sample, name), so that one worker with four
samples and two workers with two draw the same weights, and a resumed run draws what it would have drawn.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator whose state is decided by the key alone.

    On CPU torch's generator takes the lower 32 bits of a seed: of 100,000 keys about one pair shares a stream, at
    unrelated steps.
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    generator = torch.Generator(device=device)
    return generator.manual_seed(int.from_bytes(digest, "big") >> 1)


_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Noise:
    """The noise of some weight samples at one step of one run.

    `purpose` keeps training, validation and test apart; `samples` are the indices of the weight samples.
    """

    seed: int
    purpose: str
    step: int
    samples: Sequence[int]
    device: torch.device = _CPU
    dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        return len(self.samples)

    def normal(self, name: str, size: int) -> Tensor:
        """Standard normal numbers (S, size), one row per sample, decided by the keys and the name."""
        result = torch.empty(len(self.samples), size, device=self.device, dtype=self.dtype)
        for row, sample in zip(result, self.samples, strict=True):
            key = (self.seed, self.purpose, self.step, sample, name)
            row.normal_(generator=keyed_generator(*key, device=self.device))
        return result

    def after(self, first: int, count: int) -> "Noise":
        """The noise of `count` other samples of the same step, numbered from `first`."""
        return replace(self, samples=range(first, first + count))
