"""Suite files to resolved rows: base, row, tuned settings, quick and `--set` laid over each other, mistakes placed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bbh_dist.config.errors import ConfigError, Mistake, nearest, shown
from bbh_dist.config.experiment import Experiment
from bbh_dist.config.load import apply_flags, validate
from bbh_dist.config.source import KeyPath, Source, parse_assignment, read_source
from bbh_dist.config.suite import PlannedRow, Suite, SuitePlan, TunedSettings

_IDENTITY = ("method.name", "method.generator.kind")
"""What a row says it is: settings that were searched for something else must not change it."""


def load_suite(
    path: str | Path,
    assignments: Sequence[str] = (),
    flags: Sequence[tuple[str, str, Any]] = (),
    *,
    methods: str | None = None,
    quick: bool = False,
) -> SuitePlan:
    """The suite of a file with every row resolved, after `--set`, flags, `--methods a,b` and `--quick`.

    Rows take what is set last: base, row, tuned settings, quick, `--set KEY=VALUE` with a key of the experiment.
    Keys of the file (`rows.map.epochs`, `base.epochs`, `seeds`) are set in the file, before all that.

    Raises:
        ConfigError: any mistake, placed.
    """
    source, given = read_source(path), Source("--set", {})
    for assignment in assignments:
        key, value = parse_assignment(assignment)
        (source if _is_of_suite(key) else given).set(key, value, f"--set {assignment}")
    for flag in flags:
        apply_flags(source if _is_of_suite(flag[1].split(".")) else given, [flag])
    suite = validate(Suite, source)
    if quick and not suite.quick:
        raise ConfigError(Mistake("--quick", "the suite has no quick setting", got=str(path)))
    hurry, last = _Layer(("quick",), suite.quick, source), _Layer((), given.data, given)
    rows = _planned(suite, source, [last])
    hurried = _planned(suite, source, [hurry, last])  # mistakes show either way
    return SuitePlan(
        rows=hurried if quick else rows,
        quick=quick,
        departures=_departures(hurry if quick else None, assignments),
        methods=_chosen(methods, list(rows)),
        seeds=suite.seeds,
        published=suite.published,
        reference=suite.reference,
    )


def _is_of_suite(key: Sequence[str]) -> bool:
    """Whether a dotted key is one of the suite's file, not of the experiment; mistyped ones by what they resemble."""
    if key[0] in Experiment.model_fields:
        return False
    return nearest(key[0], [*Suite.model_fields, *Experiment.model_fields]) in Suite.model_fields


def _departures(quick: "_Layer | None", assignments: Sequence[str]) -> dict[str, Any]:
    """What makes the results others than those of the file, by dotted key; workers do not."""
    found = {} if quick is None else dict(quick.dotted())
    for key, value in map(parse_assignment, assignments):
        if key[0] in ("base", "rows") or not _is_of_suite(key):
            found[".".join(key)] = value
    return {key: value for key, value in found.items() if not key.removeprefix("base.").startswith("parallel.")}


def _chosen(methods: str | None, rows: list[str]) -> list[str]:
    """The rows that are run, in the suite's order."""
    if methods is None:
        return rows
    names = [name.strip() for name in methods.split(",")]
    for name in names:
        if name not in rows:
            rule = f"must be rows of the suite, of {', '.join(rows)}"
            raise ConfigError(Mistake("--methods", rule, got=shown(name), suggestion=nearest(name, rows)))
    if len(set(names)) != len(names):
        raise ConfigError(Mistake("--methods", "rows must differ", got=shown(methods)))
    return [name for name in rows if name in names]


@dataclass(frozen=True)
class _Layer:
    """Keys that are set together, dotted or nested, and where they stand."""

    path: KeyPath
    values: Mapping[str, Any]
    source: Source

    def leaves(self) -> Iterator[tuple[KeyPath, Any, KeyPath]]:
        """Key of the experiment, value, and path in the file."""
        yield from _leaves(self.values, (), self.path)

    def dotted(self) -> Iterator[tuple[str, Any]]:
        """Dotted keys and values."""
        for key, value, _ in self.leaves():
            yield ".".join(map(str, key)), value


def _leaves(values: Mapping[str, Any], key: KeyPath, path: KeyPath) -> Iterator[tuple[KeyPath, Any, KeyPath]]:
    for name, value in values.items():
        parts = (*key, *name.split("."))
        if isinstance(value, dict) and value:
            yield from _leaves(value, parts, (*path, name))
        else:
            yield parts, value, (*path, name)


def _planned(suite: Suite, source: Source, last: Sequence[_Layer]) -> dict[str, PlannedRow]:
    base = _Layer(("base",), suite.base, source)
    rows: dict[str, PlannedRow] = {}
    mistakes: dict[str, Mistake] = {}  # one in the base is one, not one per row
    for name, values in suite.rows.items():
        try:
            row = _Layer(("rows", name), values, source)
            _check_fixed(base, row, *last)
            experiment, own = _merged([base, row, *last]), [row]
            tuned, searched = _tuned(suite, source, name)
            if tuned is not None and searched is not None:
                _check_suits(tuned, searched, row, experiment, source.where(("settings", name)))
                own = [row, searched]
                experiment = _merged([base, *own, *last])
        except ConfigError as error:
            mistakes |= {str(mistake): mistake for mistake in error.mistakes}
        else:
            changes = {key: value for layer in own for key, value in layer.dotted()}
            rows[name] = PlannedRow(experiment=experiment, changes=changes, tuned=tuned)
    if mistakes:
        raise ConfigError(list(mistakes.values()))
    return rows


def _check_fixed(base: _Layer, *others: _Layer) -> None:
    """Refuse a seed anywhere, and a task of a row's own.

    Raises:
        ConfigError: one of them is set.
    """
    row = others[0]
    for layer in (base, *others):
        for key, value, path in layer.leaves():
            if key == ("seed",):
                rule = "seeds are the suite's: seeds, or --seeds"
            elif key == ("task",) and layer is row:
                rule = "must be the same in all rows, set it in base"
            else:
                continue
            raise ConfigError(Mistake(layer.source.where(path), rule, ".".join(map(str, path)), shown(value)))


def _merged(layers: Sequence[_Layer]) -> Experiment:
    """The experiment of layers, the later over the earlier: the base, a row, and others.

    Raises:
        ConfigError: with the places and the keys of the files.
    """
    base, row = layers[:2]
    source = base.source
    merged = Source(source.name, {}, {(): source.where(base.path), ("method",): source.where(row.path)})
    origins: dict[KeyPath, KeyPath] = {("method",): row.path}  # where it is missing, the row misses it
    for layer in layers:
        for key, value, path in layer.leaves():
            merged.set([str(part) for part in key], value, layer.source.where(path))
            origins[key] = path[: len(layer.path)]
    try:
        return validate(Experiment, merged)
    except ConfigError as error:
        raise ConfigError([_in_file(mistake, origins, base.path) for mistake in error.mistakes]) from error


def _in_file(mistake: Mistake, origins: Mapping[KeyPath, KeyPath], base: KeyPath) -> Mistake:
    """The mistake with its key as it stands in the file: `rows.map.method.name` for `method.name`."""
    parts: KeyPath = tuple(mistake.key.split("."))
    known = [origins[parts[:end]] for end in range(len(parts), 0, -1) if parts[:end] in origins]
    below = [path for key, path in origins.items() if key[: len(parts)] == parts]
    prefix = (known or below[-1:] or [base])[0]
    return replace(mistake, key=".".join(map(str, (*prefix, *parts))))


def _tuned(suite: Suite, source: Source, row: str) -> tuple[TunedSettings | None, _Layer | None]:
    """What a search found for a row, and the layer that it makes.

    Raises:
        ConfigError: the file is no file of settings; it stands at the suite's line where it cannot be read.
    """
    if row not in suite.settings:
        return None, None
    try:
        file = read_source(suite.settings[row])
    except ConfigError as error:
        place = source.where(("settings", row))
        raise ConfigError([replace(each, where=f"{place}: {each.where}") for each in error.mistakes]) from error
    tuned = validate(TunedSettings, file)
    return tuned, _Layer(("settings",), tuned.settings, file)


def _check_suits(tuned: TunedSettings, searched: _Layer, row: _Layer, experiment: Experiment, place: str) -> None:
    """See that settings were searched for what the row says that it is.

    Raises:
        ConfigError: another task, method, or kind of generator.
    """
    for key, found, wanted in _disagreements(tuned, dict(searched.dotted()), dict(row.dotted()), experiment):
        rule = f"the settings are those of {key} {found}, the row is {wanted}"
        raise ConfigError(Mistake(place, rule, f"settings.{row.path[-1]}", got=shown(searched.source.name)))


def _disagreements(
    tuned: TunedSettings, searched: Mapping[str, Any], row: Mapping[str, Any], experiment: Experiment
) -> Iterable[tuple[str, Any, Any]]:
    facts = [("task", tuned.task, experiment.task), ("method", tuned.method, experiment.method.name)]
    facts += [(key, searched[key], row[key]) for key in _IDENTITY if key in searched and key in row]
    return [fact for fact in facts if fact[1] != fact[2]]
