"""Files and `--set` to validated experiments and search spaces, with every mistake placed."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from bbh_dist.config.errors import ConfigError, Mistake, RuleError, nearest, shown
from bbh_dist.config.experiment import Experiment
from bbh_dist.config.methods import METHODS
from bbh_dist.config.parallel import WORKER_KINDS
from bbh_dist.config.source import KeyPath, Source, parse_assignment, read_source, write_source
from bbh_dist.config.space import Parameter, SearchSpace

Model = TypeVar("Model", bound=BaseModel)

_TYPE_RULES = {
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping of keys",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
}


def load_experiment(
    path: str | Path, assignments: Sequence[str] = (), flags: Sequence[tuple[str, str, Any]] = ()
) -> Experiment:
    """The experiment of a job file, after `--set` assignments and flags (place, dotted key, value).

    Raises:
        ConfigError: any mistake, placed.
    """
    source = read_source(path)
    for assignment in assignments:
        key, value = parse_assignment(assignment)
        source.set(key, value, f"--set {assignment}")
    apply_flags(source, flags)
    return validate(Experiment, source)


def load_space(
    path: str | Path, assignments: Sequence[str] = (), flags: Sequence[tuple[str, str, Any]] = ()
) -> SearchSpace:
    """The search space of a file, after `--set` and flags.

    A key of the experiment may be set with or without `base.` in front: `--set epochs=3`.

    Raises:
        ConfigError: any mistake, placed; also a searched key or value that no experiment may have.
    """
    source = read_source(path)
    for assignment in assignments:
        key, value = parse_assignment(assignment)
        source.set(_space_key(key), value, f"--set {assignment}")
    apply_flags(source, flags)
    space = validate(SearchSpace, source)
    mistakes = list(_search_mistakes(space, source))
    if mistakes:
        raise ConfigError(mistakes)
    return space


def override(experiment: Experiment, values: dict[str, Any]) -> Experiment:
    """The experiment with dotted keys set, validated again.

    Raises:
        ConfigError: the values do not make a valid experiment.
    """
    source = Source("trial", experiment.model_dump(mode="json"))
    for key, value in values.items():
        source.set(key.split("."), value, f"trial {key}")
    return validate(Experiment, source)


def plain(model: BaseModel) -> dict[str, Any]:
    """The resolved configuration as plain data, every default written out."""
    return model.model_dump(mode="json", exclude_none=True)


def to_yaml(model: BaseModel) -> str:
    """The same as text, which loads again to an equal model."""
    return write_source(plain(model))


def apply_flags(source: Source, flags: Iterable[tuple[str, str, Any]]) -> None:
    """Set (place, dotted key, value) of flags."""
    for place, key, value in flags:
        source.set(key.split("."), value, place)


def _space_key(key: list[str]) -> list[str]:
    """Where a dotted key of `--set` stands in a space's file: the experiment's, mistyped ones too, below `base`."""
    first = key[0]
    if first == "search":
        return _search_key(key)
    if first in SearchSpace.model_fields:
        return key
    if first in Experiment.model_fields:
        return ["base", *key]
    known = nearest(first, [*SearchSpace.model_fields, *Experiment.model_fields])
    return ["base", *key] if known in Experiment.model_fields else key


def _search_key(key: list[str]) -> list[str]:
    """`search.optimizer.lr.when.epochs` to the three levels of the file; searched keys hold dots themselves."""
    kind = next((at for at, part in enumerate(key) if at > 1 and part in Parameter.model_fields), len(key))
    levels = (key[:1], key[1:kind], key[kind : kind + 1], key[kind + 1 :])
    return [".".join(level) for level in levels if level]


def validate(model: type[Model], source: Source) -> Model:
    """The model of what was read.

    Raises:
        ConfigError: every mistake in it, placed.
    """
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        items = error.errors()
        raise ConfigError([_mistake(model, source, item) for item in items if not _is_echo(item, items)]) from error


def _is_echo(item: Any, items: Sequence[Any]) -> bool:
    """Whether pydantic counts a list as too short only because one of its values is bad."""
    loc = item["loc"]
    return item["type"] == "too_short" and any(other["loc"][: len(loc)] == loc for other in items if other is not item)


def _mistake(model: type[BaseModel], source: Source, item: Any) -> Mistake:
    """One of pydantic's complaints in the words and the place of the user's file."""
    path, kind, value = _without_tag(item["loc"]), item["type"], item["input"]
    if kind == "value_error" and isinstance(error := item["ctx"]["error"], RuleError):
        parts = _rule_path(path, error.key)
        return Mistake(source.where(parts), error.rule, _join(parts), error.got, error.suggestion)
    if kind == "extra_forbidden":
        return _unknown_key(source, path, _fields(model, item["loc"][:-1]))
    if kind == "union_tag_invalid":
        return _choice_mistake(source, (*path, "name"), value["name"], list(METHODS))
    if kind == "union_tag_not_found":
        path = (*path, "name")
        return Mistake(source.where(path), f"required key is missing, one of {', '.join(METHODS)}", _join(path))
    if kind == "literal_error":
        return _choice_mistake(source, path, value, _literals(item))
    if kind == "missing":
        return Mistake(source.where(path), "required key is missing", _join(path))
    return Mistake(source.where(path), _rule(item), _join(path), shown(value))


def _unknown_key(source: Source, path: KeyPath, known: Sequence[str]) -> Mistake:
    owners = [name for name, method in METHODS.items() if path[-1] in method.model_fields]
    if path[-2:-1] == ("method",) and owners:
        return Mistake(source.where(path), f"only the {' or '.join(owners)} method has this key", _join(path))
    suggestion = nearest(path[-1], known)
    rule = "unknown key" if suggestion else f"unknown key; known here: {', '.join(known)}"
    return Mistake(source.where(path), rule, _join(path), None, suggestion)


def _choice_mistake(source: Source, path: KeyPath, value: Any, known: Sequence[str]) -> Mistake:
    rule = f"must be one of {', '.join(known)}"
    return Mistake(source.where(path), rule, _join(path), shown(value), nearest(value, known))


def _rule(item: Any) -> str:
    if item["type"] == "too_short" and item["ctx"]["min_length"] == 1:
        return "must not be empty"
    if item["type"] == "too_short":
        return f"must have at least {item['ctx']['min_length']} values"
    if item["type"] == "too_long":
        return f"must have at most {item['ctx']['max_length']} values"
    return _TYPE_RULES.get(item["type"]) or str(item["msg"]).replace("Input should be", "must be").lower()


def _literals(item: Any) -> list[str]:
    return [part.strip(" '") for part in item["ctx"]["expected"].replace(" or ", ",").split(",")]


def _rule_path(path: KeyPath, key: str) -> KeyPath:
    """The path of a key that a validator names relative to its model; searched keys hold dots themselves."""
    if not key:
        return path
    if path and path[-1] == "search":
        return (*path, *key.rsplit(".", 1))
    return (*path, *key.split("."))


def _join(path: KeyPath) -> str:
    return ".".join(map(str, path))


def _without_tag(loc: KeyPath) -> KeyPath:
    """Pydantic's location without what it weaves in: the method's name, and how workers are given."""
    loc = tuple(part for at, part in enumerate(loc) if loc[at - 1 : at] != ("workers",) or part not in WORKER_KINDS)
    for end in (1, 2):
        if loc[:end] in (("method",), ("base", "method")) and loc[end : end + 1]:
            return loc[:end] + loc[end + 1 :]
    return loc


def _fields(model: type[BaseModel], loc: KeyPath) -> list[str]:
    """Known keys of the model that one of pydantic's locations leads to."""
    models: list[type[BaseModel]] = [model]
    for part in loc:
        if (chosen := METHODS.get(str(part))) in models:
            models = [chosen]
            continue
        inner = [found.model_fields[str(part)].annotation for found in models if part in found.model_fields]
        models = [child for annotation in inner for child in _models_in(annotation)] or models
    return list(dict.fromkeys(name for found in models for name in found.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _search_mistakes(space: SearchSpace, source: Source) -> Iterable[Mistake]:
    known = sorted(dotted_keys(space.base.model_dump(mode="json")))
    for key, parameter in space.search.items():
        path = ("search", key)
        if key not in known:
            yield Mistake(
                source.where(path), "the base experiment has no such key", _join(path), None, nearest(key, known)
            )
            continue
        where = source.where((*path, parameter.kind))
        for value in parameter.edge_values():
            if (mistake := _value_mistake(space, key, value)) is not None:
                yield Mistake(where, mistake.rule, _join(path), mistake.got, mistake.suggestion)


def _value_mistake(space: SearchSpace, key: str, value: Any) -> Mistake | None:
    """The first mistake that a searched value makes whatever the other searched keys are."""
    try:
        override(space.base, _company(space, key) | {key: value})
    except ConfigError as error:
        for mistake in error.mistakes:
            if f"{mistake.key}.".startswith(f"{key}."):
                return mistake
            if not any(f"{mistake.key}.".startswith(f"{searched}.") for searched in space.search):
                rule = f"the value {shown(value)} makes {mistake.key} wrong: {mistake.rule}"
                return replace(mistake, rule=rule)
    return None


def _company(space: SearchSpace, key: str) -> dict[str, Any]:
    """Values of the keys that a key's conditions name, and so on, under which it is searched."""
    values: dict[str, Any] = {}
    waiting = [key]
    for name in waiting:
        for parent, wanted in (space.search[name].when or {}).items():
            if parent not in values:
                values[parent] = wanted[0] if isinstance(wanted, list) else wanted
                waiting.append(parent)
    return values


def dotted_keys(data: dict[str, Any], prefix: str = "") -> Iterable[str]:
    """The keys of all leaves."""
    for key, value in data.items():
        if isinstance(value, dict):
            yield from dotted_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
