"""The figures of a study: what was tried, what it reached, which keys mattered and which trials are best."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from bbh_dist.config import Objective
from bbh_dist.report.history import draw_history
from bbh_dist.report.importance import draw_importance
from bbh_dist.report.parallel import draw_parallel
from bbh_dist.report.pareto import draw_pareto
from bbh_dist.report.style import save_png
from bbh_dist.report.trials import TrialRow, pareto_front, rank_best

__all__ = ["TrialRow", "draw_study", "pareto_front", "rank_best"]


def draw_study(
    trials: Sequence[TrialRow],
    objectives: Sequence[Objective],
    importances: Mapping[str, Mapping[str, float]],
    chosen: Collection[int],
    directory: Path,
) -> list[Path]:
    """Paths of the PNGs written to `directory`; a figure with nothing to say about these trials is left out.

    `pareto_front.png` (two objectives or more), `parallel_coordinates.png`, `parameter_importance.png`,
    `history.png`. Complete trials whose value is missing or not finite count as having none.

    Args:
        trials: all trials, in any order.
        objectives: the study's, at least one.
        importances: objective metric to searched key to its share of the objective's variance.
        chosen: numbers of the trials that are trained again, which are marked.
        directory: made if it is missing.
    """
    trials = sorted(trials, key=lambda trial: trial.number)
    figures = {
        "pareto_front.png": draw_pareto(trials, objectives, chosen),
        "parallel_coordinates.png": draw_parallel(trials, objectives, chosen),
        "parameter_importance.png": draw_importance(objectives, importances),
        "history.png": draw_history(trials, objectives, chosen),
    }
    return [save_png(figure, directory / name) for name, figure in figures.items() if figure is not None]
