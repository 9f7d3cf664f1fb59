"""Everything that a suite leaves: figures, tables as Markdown and CSV, and the page."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from bbh_dist.report import style
from bbh_dist.report.page import page
from bbh_dist.report.suite_curves import draw_curves
from bbh_dist.report.suite_figures import draw_entropies, draw_quality, draw_reliability
from bbh_dist.report.suite_robustness import draw_suite_attacks, draw_suite_shifts
from bbh_dist.report.table import as_csv, markdown
from bbh_dist.suite_results import PAGE, SuiteResults

_DRAWINGS: tuple[tuple[str, Callable[[SuiteResults], Figure | None], str], ...] = (
    (
        "curves",
        draw_curves,
        "Mean and 1, 2, 3 standard deviations of the predictive of each method's first seed; the true function dashed.",
    ),
    (
        "quality_seconds",
        draw_quality,
        "Quality against seconds of training; bars are standard deviations over seeds.",
    ),
    (
        "entropy_cdfs",
        draw_entropies,
        "Predictive entropy of all seeds' examples: on the task's test data, and on outliers.",
    ),
    (
        "reliability",
        draw_reliability,
        "Reliability on test data, all seeds together; larger marks stand for more examples.",
    ),
    ("attacks", draw_suite_attacks, "Accuracy and predictive entropy under attack, means over seeds."),
)
"""Name, what draws it or returns None where a suite has nothing for it, and the figure's caption."""
_SHIFTS = "Test images that are turned or mixed step by step, each method's first seed."


def write_suite(results: SuiteResults, folder: Path) -> list[Path]:
    """Paths of what was written to a folder: `figures/*.png`, `table.md`, `table.csv` and `report.html`."""
    figures = draw_suite(results, folder / "figures")
    texts = {"table.md": markdown(results), "table.csv": as_csv(results), PAGE: page(results, list(figures.items()))}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*figures, *(folder / name for name in texts)]


def draw_suite(results: SuiteResults, directory: Path) -> dict[Path, str]:
    """Path to caption of the PNGs written to `directory`, which is made; a figure without content is left out."""
    drawn = {name: (draw(results), caption) for name, draw, caption in _DRAWINGS}
    drawn |= {name: (figure, _SHIFTS) for name, figure in draw_suite_shifts(results).items()}
    return {
        style.save_png(figure, directory / f"{name}.png"): caption
        for name, (figure, caption) in drawn.items()
        if figure is not None
    }
