"""Fronts and rankings against hand-computed cases; figures are written, readable, or left out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from bbh_dist.config import Objective
from bbh_dist.report import TrialRow, draw_study, pareto_front, rank_best
from bbh_dist.report.coordinates import ABSENT, coordinate
from bbh_dist.report.style import metric_label, nice_ticks, number

NLL = Objective(metric="val/nll", direction="minimize")
ERROR = Objective(metric="val/error", direction="minimize")
AUROC = Objective(metric="val/outlier_auroc", direction="maximize")
NAN, INF = float("nan"), float("inf")


def trial(trial_number: int, state: str = "COMPLETE", params: dict[str, object] | None = None, **values: float):
    named = {f"val/{name}": value for name, value in values.items()}
    return TrialRow(trial_number, state, named or None, params or {"optimizer.lr": 0.1 * (trial_number + 1)}, 3.5)


def names(paths: Sequence[Path]) -> list[str]:
    return [path.name for path in paths]


class TestParetoFront:
    def test_both_minimised(self) -> None:
        # 4 is dominated by 1 (0.3 < 0.4, 5 = 5), 2 by 0 in both.
        rows = [
            trial(0, nll=0.2, error=7.0),
            trial(1, nll=0.3, error=5.0),
            trial(2, nll=0.25, error=8.0),
            trial(3, nll=0.9, error=1.5),
            trial(4, nll=0.4, error=5.0),
        ]
        assert pareto_front(rows, [NLL, ERROR]) == [0, 1, 3]

    def test_maximised_objectives_turn_and_the_best_in_the_first_comes_first(self) -> None:
        rows = [
            trial(0, outlier_auroc=0.7, nll=0.1),
            trial(1, outlier_auroc=0.9, nll=0.3),
            trial(2, outlier_auroc=0.8, nll=0.35),
            trial(3, outlier_auroc=0.6, nll=0.2),
        ]
        assert pareto_front(rows, [AUROC, NLL]) == [1, 0]
        assert pareto_front(rows, [NLL, AUROC]) == [0, 1]

    def test_equal_trials_all_stay_in_the_order_of_their_numbers(self) -> None:
        rows = [trial(5, nll=0.2, error=3.0), trial(1, nll=0.2, error=3.0), trial(2, nll=0.2, error=3.1)]
        assert pareto_front(rows, [NLL, ERROR]) == [1, 5]

    def test_a_third_objective_keeps_a_trial(self) -> None:
        rows = [trial(0, nll=0.2, error=3.0, outlier_auroc=0.5), trial(1, nll=0.3, error=4.0, outlier_auroc=0.6)]
        assert pareto_front(rows, [NLL, ERROR]) == [0]
        assert pareto_front(rows, [NLL, ERROR, AUROC]) == [0, 1]

    def test_trials_without_finite_values_neither_enter_nor_dominate(self) -> None:
        rows = [
            trial(0, nll=NAN, error=0.0),
            trial(1, nll=-INF, error=0.0),
            trial(2, nll=0.1),
            trial(3, "PRUNED", nll=0.1, error=0.1),
            trial(4, "FAIL"),
            trial(5, nll=2.0, error=9.0),
        ]
        assert pareto_front(rows, [NLL, ERROR]) == [5]

    def test_nothing_gives_nothing(self) -> None:
        assert pareto_front([], [NLL, ERROR]) == []
        assert rank_best([trial(0, nll=NAN)], [NLL]) == []


class TestRankBest:
    def test_one_objective_best_first_ties_by_number(self) -> None:
        rows = [trial(3, nll=0.4), trial(2, nll=0.4), trial(0, nll=0.7), trial(1, nll=0.1), trial(4, nll=NAN)]
        assert rank_best(rows, [NLL]) == [1, 2, 3, 0]

    def test_one_maximised_objective(self) -> None:
        rows = [trial(0, outlier_auroc=0.6), trial(1, outlier_auroc=0.9), trial(2, outlier_auroc=0.7)]
        assert rank_best(rows, [AUROC]) == [1, 2, 0]

    def test_several_by_distance_to_the_ideal_of_the_front(self) -> None:
        # Over the front nll spans [0.2, 1.2] and auroc [0.5, 0.9]. Scaled costs and distances:
        # 0: (0, 1) -> 1; 1: (0.3, 0.25) -> 0.391; 2: (1, 0) -> 1; 3: (0.1, 0.75) -> 0.757; 4 is dominated by 1.
        rows = [
            trial(0, nll=0.2, outlier_auroc=0.5),
            trial(1, nll=0.5, outlier_auroc=0.8),
            trial(2, nll=1.2, outlier_auroc=0.9),
            trial(3, nll=0.3, outlier_auroc=0.6),
            trial(4, nll=50.0, outlier_auroc=0.7),
        ]
        assert rank_best(rows, [NLL, AUROC]) == [1, 3, 0, 2]

    def test_an_objective_that_is_equal_over_the_front_does_not_count(self) -> None:
        rows = [trial(1, nll=0.2, error=3.0), trial(0, nll=0.2, error=3.0), trial(2, nll=0.2, error=4.0)]
        assert rank_best(rows, [NLL, ERROR]) == [0, 1]


class TestCoordinate:
    def test_wide_positive_numbers_are_logarithmic(self) -> None:
        axis = coordinate("optimizer.lr", [1e-4, 1e-3, 1e-2])
        assert axis.positions == pytest.approx((0.0, 0.5, 1.0))
        assert [text for _, text in axis.ticks] == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]

    def test_narrow_or_zero_numbers_are_linear(self) -> None:
        assert coordinate("x", [1, 2, 5]).positions == pytest.approx((0.0, 0.25, 1.0))
        assert coordinate("x", [0.0, 10.0, 1000.0]).positions == pytest.approx((0.0, 0.01, 1.0))

    def test_lists_are_categories_in_natural_order(self) -> None:
        axis = coordinate("hidden", [[64, 256], [8], [64], None])
        assert axis.ticks == ((0.0, "[8]"), (0.5, "[64]"), (1.0, "[64, 256]"))
        assert axis.positions == pytest.approx((1.0, 0.0, 0.5, ABSENT))
        assert axis.has_absent

    def test_trials_of_a_category_fan_out_around_it(self) -> None:
        positions = np.array(coordinate("kind", ["a", "a", "a", "b"]).positions)
        assert len(set(positions)) == 4
        assert positions[:3].mean() == pytest.approx(0.0)


def test_names_carry_units() -> None:
    assert metric_label("val/nll") == "val/nll [nats per example]"
    assert metric_label("val/error") == "val/error [%]"
    assert metric_label("val/outlier_auroc") == "val/outlier_auroc"
    assert metric_label("val/outlier_mutual_information") == "val/outlier_mutual_information [nats]"


def test_numbers_are_short_plain_text() -> None:
    assert [number(value) for value in (0.001, 1e-5, 25.0, 3e6, 0.12345678, -4.0, 1.5e-12)] == [
        *("0.001", "1e-5", "25", "3e6", "0.1235", "-4", "1.5e-12")
    ]
    assert nice_ticks(0.02, 40, log=True) == [0.03, 0.1, 0.3, 1, 3, 10, 30]
    assert nice_ticks(2, 21, log=False) == [5, 10, 15, 20]


def study(objectives: Sequence[Objective], count: int = 24) -> list[TrialRow]:
    """Trials with a conditional key, of which some are pruned, failed or NaN."""
    generator = np.random.default_rng(3)
    rows = []
    for index in range(count):
        kind = str(generator.choice(["single", "sliced", "layerwise"]))
        params: dict[str, object] = {
            "method.generator.kind": kind,
            "method.generator.hidden": [[64], [64, 256], [64, 256, 512]][generator.integers(3)],
            "optimizer.lr": float(10 ** generator.uniform(-4, -1.5)),
            "optimizer.gradient_clip": [None, 1.0][generator.integers(2)],
        }
        if kind != "single":
            params["method.generator.noise_dim"] = int(generator.integers(4, 65))
        values = {objective.metric: float(generator.uniform(0.1, 0.9)) for objective in objectives}
        state = ("PRUNED", "FAIL", *["COMPLETE"] * 5)[index % 7]
        if index == 4:
            values[objectives[0].metric] = NAN
        rows.append(TrialRow(index, state, values if state == "COMPLETE" else None, params, None))
    return rows


def check_readable(paths: Sequence[Path]) -> None:
    for path in paths:
        pixels = imread(path)
        assert min(pixels.shape[:2]) >= 300
        assert pixels[..., :3].std() > 0.02, f"{path.name} is blank"


class TestDrawStudy:
    @pytest.mark.parametrize("objectives", [[NLL, AUROC], [AUROC, ERROR, NLL]])
    def test_all_figures_of_a_search_with_several_objectives(self, objectives: list[Objective], tmp_path: Path) -> None:
        rows = study(objectives)
        shares = {each.metric: {"optimizer.lr": 0.7, "method.generator.kind": 0.3} for each in objectives}
        paths = draw_study(rows, objectives, shares, rank_best(rows, objectives)[:2], tmp_path / "new" / "folder")
        expected = ["pareto_front.png", "parallel_coordinates.png", "parameter_importance.png", "history.png"]
        assert names(paths) == expected
        check_readable(paths)

    def test_one_objective_has_no_front(self, tmp_path: Path) -> None:
        paths = draw_study(study([NLL]), [NLL], {"val/nll": {"a": 0.25, "b": 0.75}}, {5}, tmp_path)
        assert names(paths) == ["parallel_coordinates.png", "parameter_importance.png", "history.png"]
        check_readable(paths)

    @pytest.mark.parametrize(
        ("rows", "expected"),
        [
            ([], []),
            ([trial(0, nll=0.5, error=2.0)], []),
            ([trial(0, "FAIL"), trial(1, "PRUNED")], []),
            ([trial(0, nll=0.5, error=2.0), trial(1, "FAIL")], ["history.png"]),
            ([trial(i, nll=0.5, error=2.0) for i in range(4)], ["history.png"]),
            ([trial(i, nll=0.0, error=0.0) for i in range(4)], ["history.png"]),
            ([trial(i, nll=NAN, error=INF) for i in range(4)], []),
            ([trial(i, nll=NAN, error=float(i)) for i in range(4)], ["history.png"]),
        ],
        ids=["none", "one", "no-complete", "one-complete", "equal", "zero", "nan", "one-objective-nan"],
    )
    def test_figures_without_content_are_left_out(
        self, rows: list[TrialRow], expected: list[str], tmp_path: Path
    ) -> None:
        paths = draw_study(rows, [NLL, ERROR], {}, [0], tmp_path)
        assert names(paths) == expected
        assert sorted(path.name for path in tmp_path.iterdir()) == expected
        check_readable(paths)

    def test_shares_of_one_key_or_without_numbers_are_not_drawn(self, tmp_path: Path) -> None:
        rows = [trial(0, nll=0.5), trial(1, nll=0.6)]
        for shares in ({"optimizer.lr": 1.0}, {"a": NAN, "b": NAN}, {"a": 0.0, "b": 0.0}, {}):
            paths = draw_study(rows, [NLL], {"val/nll": shares}, [], tmp_path)
            assert names(paths) == ["parallel_coordinates.png", "history.png"]

    def test_trials_without_searched_keys_have_no_coordinates(self, tmp_path: Path) -> None:
        rows = [TrialRow(i, "COMPLETE", {"val/nll": float(i)}, {}, None) for i in range(3)]
        assert names(draw_study(rows, [NLL], {}, [], tmp_path)) == ["history.png"]

    def test_odd_values_and_extreme_spans(self, tmp_path: Path) -> None:
        odd: list[dict[str, object]] = [
            {"a$b$": "$x$^{", "long": "x" * 200, "clip": None, "n": INF},
            {"a$b$": "$", "long": ["y"] * 50, "clip": 1.5, "n": 1e-300, "flag": np.bool_(True)},
            {"a$b$": "", "long": {"k": 1}, "clip": NAN, "n": 1e300, "x" * 60: 2**63},
        ]
        rows = [trial(i, params=params, nll=10.0 ** (9 * i), error=-1e-12 * i) for i, params in enumerate(odd)]
        shares = {"val/nll": {"a$b$": 0.5, "x" * 60: 0.5}}
        paths = draw_study(rows, [NLL, ERROR], shares, [0, 1, 2, 99], tmp_path)
        assert len(paths) == 4
        check_readable(paths)

    def test_a_crowded_front_and_many_chosen_trials(self, tmp_path: Path) -> None:
        rows = [trial(i, nll=float(i), error=float(80 - i)) for i in range(80)]
        check_readable(draw_study(rows, [NLL, ERROR], {}, range(12), tmp_path))

    def test_threads_draw_the_same_pixels(self, tmp_path: Path) -> None:
        rows = study([NLL, AUROC])

        def draw(folder: str) -> list[bytes]:
            paths = draw_study(rows, [NLL, AUROC], {}, [2, 3], tmp_path / folder)
            return [path.read_bytes() for path in paths]

        with ThreadPoolExecutor(3) as pool:
            one, *others = pool.map(draw, "abc")
        assert all(other == one for other in others)
