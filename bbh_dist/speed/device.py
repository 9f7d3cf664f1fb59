"""Where steps are timed: the cores of this machine, or its first CUDA GPU."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.costs import Machine, measure_gpu, measure_machine
from bbh_dist.speed.machine import peak_memory
from bbh_dist.speed.timing import milliseconds

STEPS_BEFORE_WAITING = 30
"""Of a GPU, which works while the host goes on."""


@dataclass(frozen=True)
class Device:
    """A GPU, or so many threads on CPU."""

    threads: int
    gpu: bool = False

    def check(self) -> None:
        """See that it is there.

        Raises:
            ConfigError: it is not.
        """
        if self.gpu and not torch.cuda.is_available():
            raise ConfigError(Mistake("--gpu", "torch finds no CUDA GPU on this machine"))

    @property
    def torch(self) -> torch.device:
        """As torch has it."""
        return torch.device("cuda" if self.gpu else "cpu")

    @property
    def name(self) -> str:
        """As JSON has it."""
        return torch.cuda.get_device_name() if self.gpu else "cpu"

    def milliseconds(self, step: Callable[[], Any]) -> float:
        """How long a step takes, by the wall clock.

        On a GPU it is the mean of many before the host waits for them, as it does at the end of an epoch.
        """
        if not self.gpu:
            return milliseconds(step)

        def steps() -> None:
            for _ in range(STEPS_BEFORE_WAITING):
                step()
            torch.cuda.synchronize()

        return milliseconds(steps) / STEPS_BEFORE_WAITING

    def free(self) -> None:
        """Give back to it what no tensor holds any more, for other processes."""
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()

    def rates(self) -> Machine:
        """Its throughputs, measured. Takes a few seconds."""
        return measure_gpu() if self.gpu else measure_machine(self.threads)

    def peak_memory(self) -> int:
        """Most bytes that this process has held so far; on a GPU those of its tensors there."""
        return torch.cuda.max_memory_allocated() if self.gpu else peak_memory()
