"""Random numbers keyed by what they are for, not by who draws them or when.

Every weight sample of every step has its own key (seed, purpose, step, sample, name), so that one worker with four
samples and two workers with two draw the same weights, and a resumed run draws what it would have drawn.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Numbers under one key. Whoever needs some of them draws the blocks they lie in, and no others."""


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator whose state is decided by the key alone.

    On CPU torch's generator takes the lower 32 bits of a seed: of 100,000 keys about one pair shares a stream, at
    unrelated steps.
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    generator = torch.Generator(device=device)
    return generator.manual_seed(int.from_bytes(digest, "big") >> 1)


_CPU = torch.device("cpu")
_threads = ThreadPoolExecutor(thread_name_prefix="noise")


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

    def normal(self, name: str, size: int, part: range | None = None) -> Tensor:
        """Standard normal numbers (S, size), one row per sample, decided by the keys and the name.

        With `part` only those columns, the same numbers as in the whole.
        """
        part = range(size) if part is None else part
        result = torch.empty(len(self.samples), len(part), device=self.device, dtype=self.dtype)
        if not part or result.is_meta:  # on the meta device a tensor is its shape
            return result
        blocks = range(part.start // BLOCK, -(-part.stop // BLOCK))
        jobs = [(row, index, block) for index, row in enumerate(result) for block in blocks]

        def fill(job: tuple[Tensor, int, int]) -> None:
            row, index, block = job
            self._fill_block(row, name, self.samples[index], block, size, part)

        if len(blocks) > 1 and self.device.type == "cpu" and torch.get_num_threads() > 1:
            list(_threads.map(fill, jobs))
        else:
            for job in jobs:
                fill(job)
        return result

    def places(self, name: str, count: int, total: int) -> Tensor:
        """Some of `total` places in rising order (count,), on the CPU: one out of each of `count` equal stretches.

        Decided by the keys and the name, the same for all samples. Every place is as likely as any other, so `total`
        / `count` times a sum over the chosen ones is an unbiased estimate of that over all; one that lies across two
        stretches may come twice. All of them where there are no more.
        """
        if count >= total:
            return torch.arange(total)
        generator = keyed_generator(self.seed, self.purpose, self.step, name)
        stretches = torch.arange(count, dtype=torch.float64)
        chosen = (stretches + torch.rand(count, generator=generator, dtype=torch.float64)) * (total / count)
        return chosen.long().clamp_max(total - 1)

    def after(self, first: int, count: int) -> "Noise":
        """The noise of `count` other samples of the same step, numbered from `first`."""
        return replace(self, samples=range(first, first + count))

    def _fill_block(self, row: Tensor, name: str, sample: int, block: int, size: int, part: range) -> None:
        """Write the numbers of a block that lie in the part to their places in a row."""
        key: list[int | str] = [self.seed, self.purpose, self.step, sample, name, *([block] if block else [])]
        generator = keyed_generator(*key, device=self.device)
        first, last = block * BLOCK, min(size, (block + 1) * BLOCK)
        start, stop = max(first, part.start), min(last, part.stop)
        target = row[start - part.start : stop - part.start]
        if stop - start == last - first:
            target.normal_(generator=generator)
        else:
            whole = torch.empty(last - first, device=self.device, dtype=self.dtype).normal_(generator=generator)
            target.copy_(whole[start - first : stop - first])
