"""One HTML page per suite that needs nothing else: no network, no script, figures inside."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from bbh_dist.report.methods import method_name
from bbh_dist.report.table import MISSING, Table, differences, every_measure, main_table
from bbh_dist.suite_results import SuiteResults

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
.departs { background: #FFF3D6; border-left: 5px solid #E69F00; padding: .6rem 1rem; }
.failed { background: #FBE3D6; border-left: 5px solid #D55E00; padding: .6rem 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; } th { border-bottom: 2px solid #888; vertical-align: bottom; }
.facts td { text-align: left; white-space: normal; word-break: break-word; }
.note { color: #555; font-size: .88rem; margin: .3rem 0; }
img { max-width: 100%; height: auto; } figure { margin: 1.5rem 0; } figcaption { color: #555; font-size: .88rem; }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .8rem; }
"""


def page(results: SuiteResults, figures: Sequence[tuple[Path, str]]) -> str:
    """The page: tables, figures with captions, settings of every row, and where the numbers come from."""
    seeds = sorted({seed for row in results.rows for seed in row.seeds})
    title = f"{results.name}, {results.setting}"
    subtitle = f"Task {results.task}; seeds {', '.join(map(str, seeds)) or 'none'}."
    compared = differences(results)
    parts = [
        f"<h1>{_text(results.name)}</h1><p>{_text(subtitle)}</p>",
        _departures(results),
        _failures(results),
        "<h2>Results</h2>",
        _table(main_table(results)),
        *(_figure(path, caption) for path, caption in figures),
        *(["<h2>Against the reference</h2>", _table(compared)] if compared else []),
        "<h2>Every measure</h2>",
        _table(every_measure(results)),
        "<h2>Settings of the rows</h2>",
        _table(_settings(results)),
        "<h2>Where the numbers come from</h2>",
        _facts(results.facts),
        f"<details><summary>The suite, resolved</summary><pre>{_text(results.config)}</pre></details>",
    ]
    head = f"<meta charset='utf-8'><title>{_text(title)}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _text(text: object) -> str:
    return html.escape(str(text))


def _departures(results: SuiteResults) -> str:
    return f"<p class='departs'>Not the full protocol ({_text(results.setting)}).</p>" if results.departures else ""


def _failures(results: SuiteResults) -> str:
    lines = [
        f"{method_name(row.name)}, seed {seed}: {why}" for row in results.rows for seed, why in row.failures.items()
    ]
    return f"<p class='failed'>{'<br>'.join(map(_text, lines))}</p>" if lines else ""


def _table(table: Table) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in table.header)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    notes = "".join(f"<p class='note'>{_text(note)}</p>" for note in table.notes)
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>{notes}"


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    image = f"<img alt='{_text(caption)}' src='data:image/png;base64,{data}'>"
    return f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>"


def _settings(results: SuiteResults) -> Table:
    keys = list(dict.fromkeys(key for row in results.rows for key in row.changes))
    rows = [[method_name(row.name), *(str(row.changes.get(key, MISSING)) for key in keys)] for row in results.rows]
    return Table(["method", *keys], rows, ["What a row sets beside the base, which stands in full below."])


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in facts.items())
    return f"<table class='facts'>{rows}</table>"
