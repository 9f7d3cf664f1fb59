"""A suite's table, as text: for the terminal, as Markdown, and with every number as CSV."""

import csv
import io
import math
from dataclasses import dataclass
from statistics import median

from bbh_dist.config import MEASURES, TRAIN_SECONDS
from bbh_dist.over_seeds import PAIRED_TEST
from bbh_dist.report.methods import method_name
from bbh_dist.suite_results import SuiteResults, SuiteRow, direction

_MAIN = ("error", "rmse", "nll", "brier", "ece", "entropy_auc", "outlier_entropy_auc", "outlier_auroc")
_MOST_COLUMNS = 8
_LEAST_IMPORTANT = ("Brier", "ECE", "outlier AUROC", "trials", "training", "entropy AUC")
"""Columns that narrow terminals do without, by their beginning, in this order."""
_ABBREVIATIONS = {
    "nll": "NLL",
    "ece": "ECE",
    "auc": "AUC",
    "auroc": "AUROC",
    "fpr95": "FPR95",
    "rmse": "RMSE",
    "brier": "Brier",
}
_UNITS = {"error": "%", "coverage": "%"}
_ARROWS = {"minimize": " ↓", "maximize": " ↑"}
_LEVELS = ((0.01, "**"), (0.05, "*"))
MISSING = "-"


@dataclass(frozen=True)
class Table:
    """Cells of a table and the lines below it."""

    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def main_metrics(results: SuiteResults) -> list[str]:
    """The metrics of the main table: those that every paper has; all that were measured where hardly any was."""
    measured = [metric for metric in results.metrics if metric.startswith("test/")]
    chosen = [f"test/{name}" for name in _MAIN if f"test/{name}" in measured]
    if len(chosen) < 3:
        chosen += [metric for metric in measured if metric not in chosen][: _MOST_COLUMNS - len(chosen)]
    return [*chosen, *([TRAIN_SECONDS] if TRAIN_SECONDS in results.metrics else [])]


def main_table(results: SuiteResults) -> Table:
    """One line per row: seeds, trials of its search, and mean ± standard deviation with the published figure."""
    metrics = main_metrics(results)
    digits = {metric: decimals(results, metric) for metric in metrics}
    header = ["method", "seeds", "trials", *(column_label(metric) for metric in metrics)]
    rows = [
        [
            method_name(row.name),
            str(len(row.seeds)),
            MISSING if row.trials is None else str(row.trials),
            *(cell(results, row, metric, digits[metric]) for metric in metrics),
        ]
        for row in results.rows
    ]
    return Table(header, rows, notes(results))


def fitting(table: Table, width: int) -> Table:
    """The table for a terminal of so many characters: deviations below means, columns left out where it is narrow."""
    lines = [[text.replace(" ±", "\n±").replace(" (", "\n(") for text in row] for row in table.rows]
    header = [
        name.replace(" [", "\n[").replace("outlier ", "outlier\n").replace(" AU", "\nAU") for name in table.header
    ]
    kept = list(range(len(header)))
    for start in _LEAST_IMPORTANT:
        if sum(_width([header[at], *(line[at] for line in lines)]) + 3 for at in kept) < width:
            break
        kept = [at for at in kept if not table.header[at].startswith(start)]
    left_out = [name for at, name in enumerate(table.header) if at not in kept]
    notes = [f"Not shown for want of room: {', '.join(left_out)}."] if left_out else []
    return Table([header[at] for at in kept], [[line[at] for at in kept] for line in lines], [*table.notes, *notes])


def _width(texts: list[str]) -> int:
    return max(len(part) for text in texts for part in text.split("\n"))


def every_measure(results: SuiteResults) -> Table:
    """One line per measure, one column per row of the suite."""
    header = ["measure", *(method_name(row.name) for row in results.rows)]
    rows = [
        [
            column_label(metric, whole=True),
            *(cell(results, row, metric, decimals(results, metric)) for row in results.rows),
        ]
        for metric in results.metrics
    ]
    return Table(header, rows, [])


def differences(results: SuiteResults) -> Table | None:
    """Each row minus the reference over common seeds, with p-value and number of seeds; None without a reference."""
    if results.reference is None:
        return None
    metrics = main_metrics(results)
    others = [row for row in results.rows if row.name != results.reference]
    rows = [
        [method_name(row.name), *(_difference(results, row, metric, decimals(results, metric)) for metric in metrics)]
        for row in others
    ]
    note = f"Difference to {method_name(results.reference)}, p of the {PAIRED_TEST}, and n, the number of common seeds."
    return Table(["method", *(column_label(metric) for metric in metrics)], rows, [note])


def _difference(results: SuiteResults, row: SuiteRow, metric: str, digits: int) -> str:
    found = results.comparison(row, metric)
    if found is None:
        return MISSING
    p_value = "no p" if found.p_value is None else f"p = {found.p_value:.2g}"
    return f"{found.difference:+.{digits}f} ({p_value}, n = {found.n})"


def cell(results: SuiteResults, row: SuiteRow, metric: str, digits: int) -> str:
    """`0.80 ± 0.02* (0.56)`: mean, standard deviation where there are several seeds, significance, published."""
    summary, published = row.summary(metric), row.published.get(metric)
    if summary is None:
        text = MISSING
    else:
        spread = f" ± {summary.std:.{digits}f}" if summary.n > 1 else ""
        text = f"{summary.mean:.{digits}f}{spread}{_stars(results, row, metric)}"
    return text if published is None else f"{text} ({published:g})"


def _stars(results: SuiteResults, row: SuiteRow, metric: str) -> str:
    found = results.comparison(row, metric)
    if found is None or found.p_value is None:
        return ""
    return next((stars for level, stars in _LEVELS if found.p_value < level), "")


def decimals(results: SuiteResults, metric: str) -> int:
    """Places after the point that show three digits of the middle one of a metric's means."""
    means = [abs(summary.mean) for row in results.rows if (summary := row.summary(metric)) is not None]
    middle = median(means) if means else 0.0
    return min(4, max(0, 2 - math.floor(math.log10(middle)))) if middle > 0 else 3


def column_label(metric: str, whole: bool = False) -> str:
    """`error [%] ↓`, `outlier entropy AUC ↓`, `training [s] ↓`; `whole` keeps the part that it is measured on."""
    arrow = _ARROWS.get(direction(metric) or "", "")
    if metric == TRAIN_SECONDS:
        return f"training [s]{arrow}"
    name, _, at = metric.partition("@")
    part, _, name = name.rpartition("/")
    words = " ".join(_ABBREVIATIONS.get(word, word) for word in name.split("_"))
    unit = f" [{_UNITS[name]}]" if name in _UNITS else (" [nats]" if _in_nats(name) else "")
    before = f"{part.replace('/', ' ')} " if whole else ""
    return f"{before}{words}{unit}{f' at eps {at}' if at else ''}{arrow}"


def _in_nats(name: str) -> bool:
    return name in MEASURES and ", nats" in MEASURES[name].meaning


def notes(results: SuiteResults) -> list[str]:
    """What a reader has to know to read the main table."""
    several = any(len(row.seeds) > 1 for row in results.rows)
    lines = ["Means over seeds ± standard deviation (n - 1)." if several else "One seed each: no deviations, no tests."]
    if results.departures:
        lines.insert(0, f"Not the full protocol ({results.setting}).")
    if results.resources and TRAIN_SECONDS in results.metrics:
        lines.append(f"Trained with {results.resources}, other runs beside it.")
    if results.source is not None:
        lines.append(f"In brackets: {results.source}.")
    compared = [results.comparison(row, metric) for row in results.rows for metric in results.metrics]
    common = sorted({found.n for found in compared if found is not None})
    if results.reference is not None and several and common:
        seeds = " or ".join(map(str, common))
        reference = method_name(results.reference)
        lines.append(
            f"* p < 0.05, ** p < 0.01 against {reference}: {PAIRED_TEST}, n = {seeds} common seeds, "
            "not corrected for the number of comparisons."
        )
    for row in results.rows:
        misled = [(seed, line) for seed, found in row.health.items() for line in found]
        lines += [f"{method_name(row.name)}, seed {seed}: {what}." for seed, what in [*row.failures.items(), *misled]]
    return lines


def markdown(results: SuiteResults) -> str:
    """The main table with its title and notes."""
    table = main_table(results)
    lines = [f"### {results.name} ({results.setting})", "", *_markdown_rows(table), ""]
    lines += [line for note in table.notes for line in (_escaped(note), "")]
    return "\n".join(lines)


def _markdown_rows(table: Table) -> list[str]:
    aligned = ["---", *["---:"] * (len(table.header) - 1)]
    return [f"| {' | '.join(map(_escaped, row))} |" for row in (table.header, aligned, *table.rows)]


def _escaped(text: str) -> str:
    """Text whose bars and stars Markdown leaves alone."""
    return text.replace("|", "\\|").replace("*", "\\*")


_COLUMNS = (
    *("suite", "setting", "row", "measure", "mean", "std", "n", "published"),
    *("reference", "difference", "p_value", "common_seeds", "test", "trials"),
)


def as_csv(results: SuiteResults) -> str:
    """Every measure of every row with all digits, a line each; what does not exist is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in results.rows:
        for metric in results.metrics:
            writer.writerow(_csv_line(results, row, metric))
    return text.getvalue()


def _csv_line(results: SuiteResults, row: SuiteRow, metric: str) -> dict[str, object]:
    line: dict[str, object] = {"suite": results.name, "setting": results.setting, "row": row.name, "measure": metric}
    line |= {"published": row.published.get(metric, ""), "trials": "" if row.trials is None else row.trials}
    if (summary := row.summary(metric)) is not None:
        line |= {"mean": summary.mean, "std": summary.std if summary.n > 1 else "", "n": summary.n}
    if (found := results.comparison(row, metric)) is not None:
        line |= {"reference": results.reference, "difference": found.difference, "common_seeds": found.n}
        line |= {"p_value": found.p_value, "test": PAIRED_TEST} if found.p_value is not None else {}
    return line
