"""Everything that a suite leaves: figures, tables as Markdown and CSV, and the page."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from bbh_dist.report import style
from bbh_dist.report.page import page
from bbh_dist.report.suite_curves import draw_curves
from bbh_dist.report.suite_figures import draw_entropies, draw_quality, draw_reliability
from bbh_dist.report.table import as_csv, markdown
from bbh_dist.suite_results import PAGE, SuiteResults

DRAWINGS: dict[str, tuple[Callable[[SuiteResults], Figure | None], str]] = {
    "curves.png": (
        draw_curves,
        "Mean and 1, 2, 3 standard deviations of the predictive of each method's first seed; the true function dashed.",
    ),
    "quality_seconds.png": (
        draw_quality,
        "Quality against seconds of training; bars are standard deviations over seeds.",
    ),
    "entropy_cdfs.png": (
        draw_entropies,
        "Predictive entropy of all seeds' examples: on the task's test data, and on outliers.",
    ),
    "reliability.png": (
        draw_reliability,
        "Reliability on test data, all seeds together; larger marks stand for more examples.",
    ),
}
"""File name to what draws it, or returns None where a suite has nothing for it, and the figure's caption."""


def write_suite(results: SuiteResults, folder: Path) -> list[Path]:
    """Paths of what was written to a folder: `figures/*.png`, `table.md`, `table.csv` and `report.html`."""
    figures = draw_suite(results, folder / "figures")
    captions = [(path, DRAWINGS[path.name][1]) for path in figures]
    texts = {"table.md": markdown(results), "table.csv": as_csv(results), PAGE: page(results, captions)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*figures, *(folder / name for name in texts)]


def draw_suite(results: SuiteResults, directory: Path) -> list[Path]:
    """Paths of the PNGs written to `directory`, which is made; a figure without content is left out."""
    drawn = {name: draw(results) for name, (draw, _) in DRAWINGS.items()}
    return [style.save_png(figure, directory / name) for name, figure in drawn.items() if figure is not None]
