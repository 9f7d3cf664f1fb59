"""Jobs on the cluster while somebody watches: how many at a time, the live table, the tracking store."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bbh_dist.cluster.jobs import JobSource, Observer
from bbh_dist.cluster.live_table import LiveTable
from bbh_dist.cluster.session import Resources, cluster, concurrency
from bbh_dist.cluster.tracked import TrackedJobs
from bbh_dist.command_line import RunOptions
from bbh_dist.config import Parallel

if TYPE_CHECKING:
    from bbh_dist.cluster.run import Asha


class Connection:
    """Connects to the cluster when it is first needed: what is finished needs none."""

    def __init__(self, stack: contextlib.ExitStack, options: RunOptions) -> None:
        self.stack, self.options = stack, options
        self.resources: Resources | None = None

    def __call__(self) -> Resources:
        """What the cluster has."""
        if self.resources is None:
            self.resources = self.stack.enter_context(cluster(self.options.address, self.options.verbose))
        return self.resources


def run_watched(
    source: JobSource,
    count: int,
    *,
    title: str,
    metrics: Sequence[str],
    parallel: Parallel,
    connection: Connection,
    tracked: TrackedJobs,
    others: Sequence[Observer] = (),
    scheduler: "Asha | None" = None,
    data: str,
    folder: Path,
) -> None:
    """Run `count` jobs of a source, as many at a time as fit; tracking runs that are open in the end become KILLED."""
    available = connection()
    from bbh_dist.cluster.run import run_jobs  # imported here: what is refused or finished needs no Ray

    console = connection.options.console
    concurrent = min(count, concurrency(parallel, available))
    console.print(f"{title}: {count} runs, {concurrent} at a time, on {available.cpus} CPUs", style="dim")
    try:
        with LiveTable(console, title, metrics, count) as table:
            run_jobs(
                source,
                count,
                parallel=parallel,
                concurrent=concurrent,
                scheduler=scheduler,
                observers=[tracked, *others, table],
                data=data,
                folder=folder,
            )
    finally:
        tracked.kill()
