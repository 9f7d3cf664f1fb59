"""The table of a suite against values computed by hand, as Markdown, CSV, for a terminal and on the page."""

import csv
import io
import math
import re
from dataclasses import replace

import pytest
from suite_samples import BBH, MAP, RESULTS, run

from bbh_dist.report.page import page
from bbh_dist.report.table import as_csv, column_label, decimals, differences, fitting, main_table, markdown
from bbh_dist.suite_results import SuiteResults, SuiteRow

# Errors 2 and 5: mean 3.5, deviation 3 / sqrt 2 = 2.1213. Differences to BbH: 1 and 3, so p = 1 - 2 atan(2) / pi.
# Seconds: differences -72.5 and -75.5, t = 74 / 1.5 = 49.3, p = 1 - 2 atan(49.3) / pi = 0.0129: one star.
MARKDOWN = """\
### digits (quick: epochs 3)

| method | seeds | trials | error [%] ↓ | NLL [nats] ↓ | outlier entropy AUC ↓ | training [s] ↓ |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| MAP | 2 | - | 3.50 ± 2.12 (0.8) | 0.300 ± 0.014 | 0.150 ± 0.007 | 8.0 ± 0.7\\* (710) |
| BbH single | 2 | 24 | 1.50 ± 0.71 | 0.200 ± 0.071 | 0.100 ± 0.035 | 82.0 ± 2.8 |
| other\\|row | 1 | - | 4.00 | 0.600 | 0.300 | 30.0 |

Not the full protocol (quick: epochs 3).

Means over seeds ± standard deviation (n - 1).

Trained with 1 worker of 1 CPU core, other runs beside it.

In brackets: someone 2017, table 1.

\\* p < 0.05, \\*\\* p < 0.01 against BbH single: two-sided paired t-test, n = 1 or 2 common seeds, \
not corrected for the number of comparisons.

BbH single, seed 2: loss is <nan>.

BbH single, seed 1: the KL estimate was negative.
"""


def test_markdown_is_what_a_hand_computes() -> None:
    assert markdown(RESULTS) == MARKDOWN


def test_csv_has_every_measure_with_all_digits() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(RESULTS))))
    assert len(rows) == 3 * 6
    by_key = {(row["row"], row["measure"]): row for row in rows}
    error = by_key["map", "test/error"]
    assert float(error["mean"]) == 3.5
    assert float(error["std"]) == pytest.approx(4.5**0.5)
    assert (error["n"], error["published"], error["reference"], error["common_seeds"]) == (
        "2",
        "0.8",
        "bbh-single",
        "2",
    )
    assert float(error["difference"]) == 2.0
    assert float(error["p_value"]) == pytest.approx(0.2951672353008665)
    assert error["setting"] == "quick: epochs 3"
    alone = by_key["other|row", "test/nll"]
    assert (alone["std"], alone["p_value"], alone["common_seeds"]) == ("", "", "1")
    assert float(by_key["map", "val/nll"]["mean"]) == pytest.approx(0.30)  # rows are chosen by it
    reference = by_key["bbh-single", "adversarial/fgsm/error@0.1"]
    assert (reference["mean"], reference["trials"], reference["reference"]) == ("15.0", "24", "")


def test_infinite_variances_of_weights_are_left_out() -> None:
    name = "posterior/relative_variance"
    runs = {seed: {**run, name: math.inf if seed else 2.5} for seed, run in RESULTS.row("bbh-single").runs.items()}
    rows = [replace(row, runs=runs) if row.name == "bbh-single" else row for row in RESULTS.rows]
    lines = csv.DictReader(io.StringIO(as_csv(replace(RESULTS, rows=rows))))
    found = {line["row"]: (line["mean"], line["n"]) for line in lines if line["measure"] == name}
    assert found == {"map": ("", ""), "bbh-single": ("2.5", "1"), "other|row": ("", "")}


def test_differences_say_the_test_and_the_number_of_seeds() -> None:
    table = differences(RESULTS)
    assert table is not None
    assert table.rows[0][:2] == ["MAP", "+2.00 (p = 0.3, n = 2)"]
    assert table.rows[1][:2] == ["other|row", "+3.00 (no p, n = 1)"]
    assert "two-sided paired t-test" in table.notes[0]
    assert differences(replace(RESULTS, reference=None)) is None


def test_a_table_says_how_it_departs_from_its_suite() -> None:
    full = markdown(replace(RESULTS, quick=False, departures={}))
    assert "### digits (full)" in full
    assert "protocol" not in full
    assert "Not the full protocol (changed: epochs 3)." in markdown(replace(RESULTS, quick=False))


def test_one_seed_each_is_said() -> None:
    alone = replace(RESULTS, rows=[replace(row, runs={0: row.runs[0]}, failures={}) for row in RESULTS.rows])
    text = markdown(alone)
    assert "One seed each: no deviations, no tests." in text
    assert "±" not in text
    assert "t-test" not in text


def test_a_regression_shows_what_it_has() -> None:
    names = ("test/rmse", "test/nll", "test/coverage")
    row = SuiteRow("map", {0: {name: 2.0 + at for at, name in enumerate(names)}})
    assert main_table(SuiteResults("toy", [row])).rows == [["MAP", "1", "-", "2.00", "3.00", "4.00"]]


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("test/error", "error [%] ↓"),
        ("test/outlier_entropy_auc", "outlier entropy AUC ↓"),
        ("test/outlier_mutual_information", "outlier mutual information [nats] ↑"),
        ("time/train_seconds", "training [s] ↓"),
        ("test/unheard_of", "unheard of"),
        ("test/coverage", "coverage [%]"),
        ("adversarial/pgd/entropy_auc@0.1", "entropy AUC at eps 0.1"),
        ("adversarial/pgd/entropy@0.1", "entropy [nats] at eps 0.1"),
    ],
)
def test_columns_carry_units_and_directions(metric: str, label: str) -> None:
    assert column_label(metric) == label


def test_whole_names_say_what_was_measured_on() -> None:
    assert column_label("adversarial/fgsm/error@0.1", whole=True) == "adversarial fgsm error [%] at eps 0.1 ↓"


@pytest.mark.parametrize(("errors", "expected"), [((0.5, 0.7), 3), ((3.0, 25.0), 1), ((150.0, 2000.0), 0), ((0.0,), 3)])
def test_decimals_show_three_digits(errors: tuple[float, ...], expected: int) -> None:
    rows = [SuiteRow(str(at), {0: run(error, 1.0, 1.0)}) for at, error in enumerate(errors)]
    assert decimals(SuiteResults("s", rows), "test/error") == expected


def test_narrow_terminals_get_fewer_columns_and_are_told() -> None:
    table = main_table(RESULTS)
    wide, narrow = fitting(table, 200), fitting(table, 62)
    assert len(wide.header) == 7
    assert wide.notes == table.notes
    assert [name.split()[0] for name in narrow.header] == ["method", "seeds", "error", "NLL", "outlier"]
    assert narrow.notes[-1] == "Not shown for want of room: trials, training [s] ↓."
    assert narrow.rows[0][2] == "3.50\n± 2.12\n(0.8)"


def test_the_page_needs_nothing_else(tmp_path) -> None:  # type: ignore[no-untyped-def]
    figure = tmp_path / "figure.png"
    figure.write_bytes(b"\x89PNG")
    text = page(RESULTS, [(figure, "what <it> shows")])
    assert not re.search(r"(?:src|href)=(?!'data:)", text)
    assert "http" not in text
    assert "<script" not in text
    assert "src='data:image/png;base64,iVBORw=='" in text
    assert "Not the full protocol (quick: epochs 3)." in text
    for escaped in ("what &lt;it&gt; shows", "loss is &lt;nan&gt;", "a &amp; b.yaml", "map: &lt;b&gt;"):
        assert escaped in text
    for cell in ("3.50 ± 2.12 (0.8)", "+2.00 (p = 0.3, n = 2)", "adversarial fgsm error [%] at eps 0.1", "2.13.0"):
        assert cell in text


def test_the_reference_is_compared_with_nothing() -> None:
    assert RESULTS.comparison(BBH, "test/error") is None
    assert RESULTS.comparison(MAP, "test/none") is None
