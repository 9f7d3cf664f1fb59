"""Random numbers keyed by what they are for, not by who draws them or when.

Every weight sample of every step has its own key (seed, purpose, step, sample, name), so that one worker with four
samples and two workers with two draw the same weights, and a resumed run draws what it would have drawn.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Numbers under one key. Whoever needs some of them draws the blocks they lie in, and no others."""
WORDS_BLOCK = 1 << 13
"""Words of 64 random bits under one key: few, as those of a share of a batch may begin and end anywhere."""
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
        return self._filled(result, name, part, BLOCK, size, torch.Tensor.normal_)

    def integers(self, name: str, part: range) -> Tensor:
        """Random 16-bit integers (S, len(part)), each of the 65,536 values alike, decided by the keys and the name.

        `part` is cut from an endless row of them: any part gives the same numbers. They take a quarter of a word of a
        generator each, where uniform numbers take a whole one and a conversion.
        """
        words = range(part.start // _INTEGERS_PER_WORD, -(-part.stop // _INTEGERS_PER_WORD))
        result = torch.empty(len(self.samples), len(words), device=self.device, dtype=torch.int64)
        end = -(-words.stop // WORDS_BLOCK) * WORDS_BLOCK
        self._filled(result, f"{name}/words", words, WORDS_BLOCK, end, _fill_with_bits)
        start = part.start - words.start * _INTEGERS_PER_WORD
        return result.view(torch.int16)[:, start : start + len(part)]

    def some(self, places: range) -> "Noise":
        """The noise of the samples at these places of the row."""
        return replace(self, samples=self.samples[places.start : places.stop])

    def after(self, first: int, count: int) -> "Noise":
        """The noise of `count` other samples of the same step, numbered from `first`."""
        return replace(self, samples=range(first, first + count))

    def _filled(self, result: Tensor, name: str, part: range, block: int, size: int, draw: "Draw") -> Tensor:
        """The result (S, len(part)), filled with the columns `part` of `size` that are drawn in blocks."""
        if not part or result.is_meta:  # on the meta device a tensor is its shape
            return result
        blocks = range(part.start // block, -(-part.stop // block))
        jobs = [(row, index, number) for index, row in enumerate(result) for number in blocks]

        def fill(job: tuple[Tensor, int, int]) -> None:
            row, index, number = job
            whole = range(number * block, min(size, (number + 1) * block))
            self._fill_block(row, name, self.samples[index], number, whole, part, draw)

        # A block of words takes no longer than to hand it to a thread.
        if len(blocks) > 1 and block >= BLOCK and self.device.type == "cpu" and torch.get_num_threads() > 1:
            list(_threads.map(fill, jobs))
        else:
            for job in jobs:
                fill(job)
        return result

    def _fill_block(
        self, row: Tensor, name: str, sample: int, number: int, whole: range, part: range, draw: "Draw"
    ) -> None:
        """Write the numbers of a block that lie in the part to their places in a row."""
        key: list[int | str] = [self.seed, self.purpose, self.step, sample, name, *([number] if number else [])]
        generator = keyed_generator(*key, device=self.device)
        start, stop = max(whole.start, part.start), min(whole.stop, part.stop)
        target = row[start - part.start : stop - part.start]
        if stop - start == len(whole):
            draw(target, generator=generator)
        else:
            drawn = draw(row.new_empty(len(whole)), generator=generator)
            target.copy_(drawn[start - whole.start : stop - whole.start])


@dataclass(frozen=True)
class ExampleNoise:
    """Noise of its own for every example of a share, keyed by the example's place; `first` is that of the first one.

    Nothing depends on where shares begin and end. Legend: S weight samples, B examples.
    """

    noise: Noise
    first: int

    def normal(self, name: str, examples: int, size: int) -> Tensor:
        """Standard normal numbers (S, B, size)."""
        part = self._part(examples, size)
        whole = -(-part.stop // BLOCK) * BLOCK  # a block that is cut has other numbers
        return self.noise.normal(name, whole, part).unflatten(1, (examples, size))

    def coins(self, name: str, examples: int, size: int, ones: int) -> Tensor:
        """0 or 1, (S, B, size), each 1 with a probability of `ones` / 65,536."""
        integers = self.noise.integers(name, self._part(examples, size)).unflatten(1, (examples, size))
        # Compared into floating-point numbers: products with booleans take several times as long.
        result = torch.empty(integers.shape, device=self.noise.device, dtype=self.noise.dtype)
        return torch.lt(integers, ones - INTEGERS // 2, out=result)

    def signs(self, name: str, examples: int, size: int) -> Tensor:
        """1 or -1, (S, B, size), both alike."""
        return self.coins(name, examples, size, INTEGERS // 2).mul_(2).sub_(1)

    def _part(self, examples: int, size: int) -> range:
        return range(self.first * size, (self.first + examples) * size)


Draw = Callable[..., Tensor]
"""Fills a tensor in place with what a generator gives, and returns it."""


def _fill_with_bits(words: Tensor, generator: torch.Generator) -> Tensor:
    return words.random_(-(1 << 63), None, generator=generator)
