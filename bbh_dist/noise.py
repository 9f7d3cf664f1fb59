"""Random numbers keyed by what they are for, not by who draws them or when.

Every weight sample of every step has its own key (seed, purpose, step, sample, name), so that one worker with four
samples and two workers with two draw the same weights, and a resumed run draws what it would have drawn.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Numbers under one key. Whoever needs some of them draws those blocks, as far as needed, and no others."""
SMALL_BLOCK = 1 << 13
"""The same in endless rows of numbers, of which a share of a batch needs a part that begins and ends anywhere."""
_CHUNK = 16
"""Normal numbers that torch makes at once on the CPU."""
_INTEGERS_PER_WORD = 4
INTEGERS = 1 << 16
"""Values of a random integer."""


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator whose state is decided by the key alone.

    On CPU torch's generator takes the lower 32 bits of a seed: of 100,000 keys about one pair shares a stream, at
    unrelated steps.
    """
    digest = hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=8).digest()
    generator = torch.Generator(device=device)
    return generator.manual_seed(int.from_bytes(digest, "big") >> 1)


_CPU = torch.device("cpu")


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="noise")


# The threads of a pool do not exist in a forked child, which would wait for them for ever.
os.register_at_fork(after_in_child=_threads.cache_clear)


def drawn_blocks(part: range, block: int, size: int | None, on_cpu: bool) -> list[range]:
    """The numbers that have to be drawn for a part of a row of `size`, or endless one: of each block from its start on.

    On the CPU torch makes normal numbers in chunks of 16, one after another, and random words one by one, so what comes
    after the part's last chunk may be left out; but not if the block's last 16 numbers are needed, which are made anew
    where chunks don't fill the block. On a GPU a number depends on how many are drawn with it.
    """
    found = []
    for start in range(part.start - part.start % block, part.stop, block) if part else ():
        stop = start + block if size is None else min(size, start + block)
        chunks = start + -(-(part.stop - start) // _CHUNK) * _CHUNK
        found.append(range(start, chunks if on_cpu and chunks <= stop - _CHUNK else stop))
    return found


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
        return self._filled(self._empty(len(part)), name, part, BLOCK, size, torch.Tensor.normal_)

    def endless_normal(self, name: str, part: range) -> Tensor:
        """Standard normal numbers (S, len(part)), cut from an endless row of them for each sample."""
        return self._filled(self._empty(len(part)), f"{name}/normal", part, SMALL_BLOCK, None, torch.Tensor.normal_)

    def endless_integers(self, name: str, part: range) -> Tensor:
        """Random 16-bit integers (S, len(part)), each value as likely, cut from an endless row for each sample.

        Each is a quarter of a generator's word, where a uniform number takes a whole one and a conversion.
        """
        words = range(part.start // _INTEGERS_PER_WORD, -(-part.stop // _INTEGERS_PER_WORD))
        result = torch.empty(len(self.samples), len(words), device=self.device, dtype=torch.int64)
        self._filled(result, f"{name}/words", words, SMALL_BLOCK, None, _fill_with_bits)
        start = part.start - words.start * _INTEGERS_PER_WORD
        return result.view(torch.int16)[:, start : start + len(part)]

    def some(self, places: range) -> "Noise":
        """The noise of the samples at these places of the row."""
        return replace(self, samples=self.samples[places.start : places.stop])

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

    def _empty(self, columns: int) -> Tensor:
        return torch.empty(len(self.samples), columns, device=self.device, dtype=self.dtype)

    def _filled(self, result: Tensor, name: str, part: range, block: int, size: int | None, draw: "Draw") -> Tensor:
        """The result (S, len(part)), filled with columns that are drawn in blocks, the last of `size` cut short."""
        if not part or result.is_meta:  # on the meta device a tensor is its shape
            return result
        blocks = drawn_blocks(part, block, size, self.device.type == "cpu")
        jobs = [(row, sample, drawn) for row, sample in zip(result, self.samples, strict=True) for drawn in blocks]

        def fill(jobs: list[tuple[Tensor, int, range]]) -> None:
            for row, sample, drawn in jobs:
                self._fill_block(row, name, sample, drawn.start // block, drawn, part, draw)

        threads = torch.get_num_threads() if self.device.type == "cpu" and result.numel() > BLOCK else 1
        list(map(fill, [jobs]) if threads == 1 else _threads().map(fill, [jobs[i::threads] for i in range(threads)]))
        return result

    def _fill_block(
        self, row: Tensor, name: str, sample: int, number: int, drawn: range, part: range, draw: "Draw"
    ) -> None:
        """Write those of a block's `drawn` numbers that lie in the part to their places in a row."""
        key: list[int | str] = [self.seed, self.purpose, self.step, sample, name, *([number] if number else [])]
        generator = keyed_generator(*key, device=self.device)
        start, stop = max(drawn.start, part.start), min(drawn.stop, part.stop)
        target = row[start - part.start : stop - part.start]
        if stop - start == len(drawn):
            draw(target, generator=generator)
        else:
            numbers = draw(row.new_empty(len(drawn)), generator=generator)
            target.copy_(numbers[start - drawn.start : stop - drawn.start])


@dataclass(frozen=True)
class ExampleNoise:
    """Noise of its own for every example of a share, keyed by the example's place; `first` is that of the first one.

    Nothing depends on where shares begin and end. Legend: S weight samples, B examples.
    """

    noise: Noise
    first: int

    def normal(self, name: str, examples: int, size: int) -> Tensor:
        """Standard normal numbers (S, B, size)."""
        return self.noise.endless_normal(name, self._part(examples, size)).unflatten(1, (examples, size))

    def coins(self, name: str, examples: int, size: int, ones: int) -> Tensor:
        """0 or 1, (S, B, size), each 1 with a probability of `ones` / 65,536; `ones` is at least 1."""
        integers = self.noise.endless_integers(name, self._part(examples, size)).unflatten(1, (examples, size))
        # Compared into floating-point numbers: products with booleans take several times as long.
        result = torch.empty(integers.shape, device=self.noise.device, dtype=self.noise.dtype)
        return torch.le(integers, ones - INTEGERS // 2 - 1, out=result)

    def signs(self, name: str, examples: int, size: int) -> Tensor:
        """1 or -1, (S, B, size), both alike."""
        return self.coins(name, examples, size, INTEGERS // 2).mul_(2).sub_(1)

    def _part(self, examples: int, size: int) -> range:
        return range(self.first * size, (self.first + examples) * size)


Draw = Callable[..., Tensor]
"""Fills a tensor in place with what a generator gives, and returns it."""


def _fill_with_bits(words: Tensor, generator: torch.Generator) -> Tensor:
    return words.random_(-(1 << 63), None, generator=generator)
