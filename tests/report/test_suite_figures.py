"""Figures of a suite are drawn from what is there; pooled bins against hand-computed values."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from suite_samples import MAP, RESULTS, curves

from bbh_dist.report.suite import draw_suite, write_suite
from bbh_dist.report.suite_curves import draw_curves
from bbh_dist.report.suite_figures import draw_entropies, pooled_bins
from bbh_dist.report.suite_robustness import draw_suite_attacks, mean_attacks
from bbh_dist.suite_results import SuiteResults, SuiteRow


def test_everything_is_written(tmp_path: Path) -> None:
    written = write_suite(RESULTS, tmp_path)
    assert [path.name for path in written] == [
        *("quality_seconds.png", "entropy_cdfs.png", "reliability.png"),
        *("table.md", "table.csv", "report.html"),
    ]
    for path in written[:3]:
        pixels = imread(path)
        assert pixels[..., :3].std() > 0.02, f"{path.name} is blank"
    assert written[-1].read_text().count("src='data:image/png;base64,") == 3


def test_figures_without_content_are_left_out(tmp_path: Path) -> None:
    bare = replace(RESULTS, rows=[replace(MAP, details={})])
    assert draw_suite(bare, tmp_path) == {}


def test_no_outliers_one_panel() -> None:
    def without(row):  # type: ignore[no-untyped-def]
        kept = {name: value for name, value in curves(2).items() if name != "outlier_entropy_cdf"}
        return replace(row, details={0: {"curves": kept}})

    both, alone = draw_entropies(RESULTS), draw_entropies(replace(RESULTS, rows=[without(MAP)]))
    assert both is not None
    assert alone is not None
    assert (len(both.axes), len(alone.axes)) == (2, 1)


def test_a_curve_is_the_mean_over_seeds() -> None:
    figure = draw_entropies(RESULTS)
    assert figure is not None
    line = figure.axes[0].lines[0]
    expected = (np.array(curves(3)["entropy_cdf"]) + np.array(curves(4)["entropy_cdf"])) / 2
    assert np.allclose(line.get_ydata(), expected)


def curve(stddev: float) -> dict[str, object]:
    x = np.linspace(-6, 6, 30)
    lists = {"x": x, "truth": x**3, "mean": 30 * x, "stddev": 0 * x + stddev, "predictive_stddev": 0 * x + stddev + 9}
    points = {"train_x": [-2.0, 1.0], "train_y": [-9.0, 3.0], "train_coverage": 95.0}
    return {name: values.tolist() for name, values in lists.items()} | points


def test_curves_of_a_regression_share_their_axes() -> None:
    rows = [SuiteRow(name, {0: {}}, {0: {"curves": {"curve": curve(std)}}}) for name, std in (("map", 0), ("bbh", 80))]
    figure = draw_curves(SuiteResults("toy", [*rows, SuiteRow("mnf", {0: {}}, {0: {"curves": {}}})]))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == [
        *("MAP, 95 % of data in 2 stddev", "BbH, 95 % of data in 2 stddev")
    ]
    # The widest band, 3 (80 + 9) around 30 x at the ends.
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim() == pytest.approx((-180 - 267, 180 + 267))
    assert draw_curves(RESULTS) is None


def test_bins_of_several_runs_are_pooled_by_their_examples() -> None:
    one = {"confidence": [None, 0.2, 0.6], "accuracy": [None, 0.4, 0.5], "bin_count": [0, 10, 30]}
    two = {"confidence": [None, None, 0.8], "accuracy": [None, None, 1.0], "bin_count": [0, 0, 10]}
    found = pooled_bins([one, two])
    assert found is not None
    confidence, accuracy, count = found
    # (0.6 * 30 + 0.8 * 10) / 40 and (0.5 * 30 + 1 * 10) / 40
    assert confidence == pytest.approx([np.nan, 0.2, 0.65], nan_ok=True)
    assert accuracy == pytest.approx([np.nan, 0.4, 0.625], nan_ok=True)
    assert count == pytest.approx([0, 10, 40])
    assert pooled_bins([{}]) is None


def test_attack_curves_are_means_over_seeds() -> None:
    def attacked(*accuracy: float) -> dict[str, dict[str, object]]:
        return {"fgsm": {"examples": 100, "epsilons": [0.0, 0.1], "accuracy": list(accuracy), "entropy": [0.1, 0.3]}}

    found = mean_attacks([attacked(90.0, 50.0), attacked(80.0, 20.0)])["fgsm"]
    assert found == {"examples": 100, "epsilons": [0.0, 0.1], "accuracy": [85.0, 35.0], "entropy": [0.1, 0.3]}
    details = {seed: {"curves": {"classes": 5, "attacks": attacked(90.0, 50.0 - seed)}} for seed in (0, 8)}
    figure = draw_suite_attacks(SuiteResults("s", [SuiteRow("map", {0: {}, 8: {}}, details)]))
    assert figure is not None
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([90.0, 46.0])
    assert draw_suite_attacks(RESULTS) is None
