"""What the terminal shows while jobs run: a live table, or one line per finished job where nobody watches."""

import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bbh_dist.cluster.jobs import Job, Outcome

_STYLES = {"RUNNING": "cyan", "COMPLETE": "green", "PRUNED": "yellow", "FAIL": "bold red"}
_ROWS_BESIDE_TABLE = 8
_SECONDS_BETWEEN_LINES = 20


class LiveTable:
    """Watches jobs; a context manager that owns the terminal's last lines while it is open."""

    def __init__(self, console: Console, title: str, metrics: Sequence[str], count: int) -> None:
        self.console, self.title, self.metrics, self.count = console, title, list(metrics), count
        self._running: dict[str, tuple[Job, dict[str, float]]] = {}
        self._ended: list[tuple[Job, Outcome]] = []
        self._started = self._printed = time.monotonic()
        self._live = Live(
            get_renderable=self._render, console=console, refresh_per_second=4, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> "LiveTable":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()
            self._running.clear()
            self.console.print(self._table(len(self._ended)))

    def started(self, job: Job) -> None:
        """A job was handed to the cluster."""
        self._running[job.name] = (job, {})

    def reported(self, job: Job, metrics: dict[str, float]) -> None:
        """A job finished an epoch; where nobody watches, a line says so now and then."""
        self._running[job.name] = (job, metrics)
        if not self.console.is_terminal and time.monotonic() - self._printed > _SECONDS_BETWEEN_LINES:
            values = "  ".join(f"{name} {metrics[name]:.4g}" for name in self.metrics if name in metrics)
            self._line(f"{job.name}  epoch {metrics['epoch']:.0f}/{job.experiment.epochs}  {values}")

    def ended(self, job: Job, outcome: Outcome) -> None:
        """A job ended."""
        self._running.pop(job.name, None)
        self._ended.append((job, outcome))
        if not self.console.is_terminal:
            values = "  ".join(
                f"{name} {outcome.metrics[name]:.4g}" for name in self.metrics if name in outcome.metrics
            )
            parts = [
                f"[{len(self._ended)}/{self.count}] {job.name}",
                outcome.state,
                values,
                f"{outcome.seconds:.1f} s",
                outcome.reason or short_params(job.params),
            ]
            self._line("  ".join(part for part in parts if part))

    def _line(self, text: str) -> None:
        self._printed = time.monotonic()
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        seconds = time.monotonic() - self._started
        status = f"{len(self._ended)} of {self.count} done, {len(self._running)} running, {seconds:.0f} s"
        return Group(self._table(max(3, self.console.height - _ROWS_BESIDE_TABLE)), Text(status, style="dim"))

    def _table(self, rows: int) -> Table:
        table = Table(title=self.title, title_justify="left")
        numbers = ["epoch", *(metric.replace("/", "/\n") for metric in self.metrics), "seconds"]
        widths = [15, 8, *(max(7, *(len(line) for line in name.split("\n"))) for name in numbers)]
        table.add_column("run", no_wrap=True, min_width=widths[0])
        table.add_column("state", no_wrap=True, min_width=widths[1])
        for name, width in zip(numbers, widths[2:], strict=True):
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        # What is left of the line, so that long values shorten themselves and not the numbers.
        rest = self.console.width - sum(widths) - 3 * (len(widths) + 1) - 1
        table.add_column("searched values", no_wrap=True, overflow="ellipsis", max_width=max(8, rest))
        running = list(self._running.values())
        for job, outcome in self._ended[max(0, len(self._ended) + len(running) - rows) :]:
            # Other threads append while this one draws; a copied row never changes.
            values = outcome.reason or short_params(job.params)
            self._add(table, job, outcome.state, outcome.metrics, f"{outcome.seconds:.1f}", values)
        for job, metrics in running:
            self._add(table, job, "RUNNING", metrics, "", short_params(job.params))
        return table

    def _add(self, table: Table, job: Job, state: str, metrics: dict[str, float], seconds: str, values: str) -> None:
        numbers = [f"{metrics[name]:.4g}" if name in metrics else "" for name in self.metrics]
        epoch = f"{metrics['epoch']:.0f}/{job.experiment.epochs}" if "epoch" in metrics else ""
        table.add_row(job.name, Text(state, style=_STYLES[state]), epoch, *numbers, seconds, Text(values))


def short_params(params: dict[str, Any]) -> str:
    """Searched values in one line, keys by their last part: `kind single, lr 0.0013`."""
    return ", ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in params.items())


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
