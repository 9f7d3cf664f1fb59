"""Where a run runs: workers and what each of them has."""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from bbh_dist.config.errors import RuleError
from bbh_dist.config.model import Frozen

WorkerCount = Annotated[int, Field(ge=1, le=4096)]

WORKER_KINDS = ("number", "range")
"""How pydantic calls the two ways to say how many workers."""


class WorkerRange(Frozen):
    """A number of workers that may change from start to start of them, as the cluster has room."""

    min: WorkerCount = 1
    """With fewer a run waits."""
    max: WorkerCount
    """More it does not take."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise RuleError(f"must be at most max, {self.max}", key="min", got=self.min)
        return self


def _kind_of_workers(value: Any) -> str:
    return WORKER_KINDS[isinstance(value, dict | WorkerRange)]


class Parallel(Frozen):
    """Where a run runs."""

    workers: Annotated[
        Annotated[WorkerCount, Tag(WORKER_KINDS[0])] | Annotated[WorkerRange, Tag(WORKER_KINDS[1])],
        Discriminator(_kind_of_workers),
    ] = 1
    """Data-parallel workers; each takes its share of every global batch. `{min: 2, max: 4}` takes as many as there are
    whenever workers are started, also after some were lost; results do not depend on it."""
    shards: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Workers over which the sampling of weights is split; must divide `workers`, the others are replicas; 1 or left
    out where `workers` is a range.
    Default: all of them for bbh; for an ensemble as many as hold the same number of members each; 1 for other methods,
    which have nothing to split."""
    cpus_per_worker: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU cores, and threads, of a worker. Default: 1, but all of the machine's for a training run on its own."""
    use_gpu: bool = False
    """One GPU per worker (nccl); otherwise CPU (gloo)."""
    compile: bool = False
    """Training steps of one worker by torch.compile, on a GPU as CUDA graphs (which was never run on one). Results are
    the same but for rounding; the first steps take a minute or two more, once on a machine. For GPUs, where most of a
    small network's step is the start of its kernels: on CPUs it is no faster."""

    @model_validator(mode="after")
    def _compiled_steps_are_of_one_worker(self) -> Self:
        # What workers send is counted in Python, and a program that contains the count is compiled anew in every step.
        if self.compile and self.max_workers > 1:
            raise RuleError("must be false with several workers", key="compile", got=True)
        return self

    @property
    def min_workers(self) -> int:
        """Workers without which a run does not start."""
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def max_workers(self) -> int:
        """Workers that a run takes where there are enough."""
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change."""
        return self.min_workers < self.max_workers

    @property
    def worker_text(self) -> str:
        """How many workers, for people: `4`, or `2 to 4`."""
        return f"{self.min_workers} to {self.max_workers}" if self.is_elastic else str(self.max_workers)
