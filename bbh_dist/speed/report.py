"""The table on the screen."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_WIDTH_OF_FILES = 120

Column = tuple[str, Callable[[Mapping[str, Any]], str]]
"""A heading, and the text of a row."""


def show(result: Mapping[str, Any], columns: list[Column], group: str) -> None:
    """Print the rows, a line between those that differ in `group`, the machine, and what the numbers include."""
    console, machine = Console(), result["machine"]
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    columns = [(heading, text) for heading, text in columns if any(text(row) for row in result["rows"])]
    table = Table(title=result["title"], title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, (heading, _) in enumerate(columns):
        table.add_column(heading, justify="right" if index else "left", no_wrap=index == 0)
    for _, rows in itertools.groupby(result["rows"], lambda row: row.get(group)):
        for row in rows:
            table.add_row(*(text(row) for _, text in columns))
        table.add_section()
    console.print(table)
    versions, gpu = machine["versions"], "" if machine["device"] == "cpu" else f"{machine['device']}; "
    console.print(
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"load {machine['load_before']:.1f} before; torch {versions['torch']}, python {versions['python']}",
        soft_wrap=True,
    )
    for line in result["notes"]:
        console.print(line, soft_wrap=True, style="dim")


def column(heading: str, key: str, form: Callable[[Any], str]) -> Column:
    """A column of one entry of the rows, empty where a row has none."""
    return heading, lambda row: "" if row.get(key) is None else form(row[key])


def number(value: float) -> str:
    """Three digits that count, without exponents."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(count: float) -> str:
    """Bytes with a decimal unit."""
    for unit, amount in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= amount:
            return f"{number(count / amount)} {unit}"
    return f"{count:.0f} B"


TIMES: list[Column] = [
    column("median\nms", "median", number),
    ("min-max", lambda row: f"{number(row['min'])}-{number(row['max'])}"),
]
