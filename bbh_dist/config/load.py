"""Files and `--set` to validated experiments and search spaces, with every mistake placed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from bbh_dist.config.errors import ConfigError, Mistake, RuleError, nearest, shown
from bbh_dist.config.experiment import METHODS, BbhMethod, Experiment, MapMethod
from bbh_dist.config.source import KeyPath, Source, parse_assignment, read_source
from bbh_dist.config.space import SearchSpace

Model = TypeVar("Model", bound=BaseModel)

_METHOD_MODELS: dict[str, type[BaseModel]] = {"map": MapMethod, "bbh": BbhMethod}
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
    _apply_flags(source, flags)
    return _validate(Experiment, source)


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
        if key[0] not in SearchSpace.model_fields and key[0] in Experiment.model_fields:
            key = ["base", *key]
        elif key[0] == "search" and len(key) > 2:
            key = _search_key(key)
        source.set(key, value, f"--set {assignment}")
    _apply_flags(source, flags)
    space = _validate(SearchSpace, source)
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
    return _validate(Experiment, source)


def to_yaml(model: BaseModel) -> str:
    """The resolved configuration, every default written out; loads again to an equal model."""
    return yaml.safe_dump(model.model_dump(mode="json", exclude_none=True), sort_keys=False)


def _apply_flags(source: Source, flags: Iterable[tuple[str, str, Any]]) -> None:
    for place, key, value in flags:
        source.set(key.split("."), value, place)


def _search_key(key: list[str]) -> list[str]:
    """`search.optimizer.lr.loguniform` to the dotted key and its kind, which stand in the file as two levels."""
    head, last = key[1:-1], key[-1]
    return ["search", ".".join(head), last]


def _validate(model: type[Model], source: Source) -> Model:
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        raise ConfigError([_mistake(model, source, item) for item in error.errors()]) from error


def _mistake(model: type[BaseModel], source: Source, item: Any) -> Mistake:
    """One of pydantic's complaints in the words and the place of the user's file."""
    path, kind, value = _without_tags(item["loc"]), item["type"], item["input"]
    if kind == "value_error" and isinstance(error := item["ctx"]["error"], RuleError):
        parts = _rule_path(path, error.key)
        return Mistake(source.where(parts), error.rule, _join(parts), error.got, error.suggestion)
    if kind == "extra_forbidden":
        known = _fields(model, path[:-1])
        suggestion = nearest(path[-1], known)
        rule = "unknown key" if suggestion else f"unknown key; known here: {', '.join(known)}"
        return Mistake(source.where(path), rule, _join(path), None, suggestion)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        path, value = (*path, "name"), value.get("name")
        return _choice_mistake(source, path, value, METHODS)
    if kind == "literal_error":
        return _choice_mistake(source, path, value, _literals(item))
    if kind == "missing":
        return Mistake(source.where(path), "required key is missing", _join(path))
    return Mistake(source.where(path), _rule(item), _join(path), shown(value))


def _choice_mistake(source: Source, path: KeyPath, value: Any, known: Sequence[str]) -> Mistake:
    rule = f"must be one of {', '.join(known)}"
    return Mistake(source.where(path), rule, _join(path), shown(value), nearest(value, known))


def _rule(item: Any) -> str:
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


def _without_tags(loc: Sequence[str | int]) -> KeyPath:
    """Pydantic's location without the names of union members that it weaves in."""
    path: list[str | int] = []
    for part in loc:
        if path and path[-1] == "method" and part in METHODS:
            continue
        path.append(part)
    return tuple(path)


def _fields(model: type[BaseModel], path: KeyPath) -> list[str]:
    """Known keys of the models that a path leads to: several where methods differ."""
    models: list[type[BaseModel]] = [model]
    for part in path:
        inner = [found.model_fields[str(part)].annotation for found in models if part in found.model_fields]
        models = [child for annotation in inner for child in _models_in(annotation)] or models
    return list(dict.fromkeys(name for found in models for name in found.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _search_mistakes(space: SearchSpace, source: Source) -> Iterable[Mistake]:
    base = space.base.model_dump(mode="json")
    for key, parameter in space.search.items():
        where = source.where(("search", key))
        known = sorted(_dotted(base))
        if key not in known:
            yield Mistake(where, "no experiment has this key", f"search.{key}", None, nearest(key, known))
            continue
        for value in parameter.edge_values():
            yield from _value_mistakes(space.base, key, value, where)


def _value_mistakes(base: Experiment, key: str, value: Any, where: str) -> Iterable[Mistake]:
    """The mistakes of one searched value that are that key's own, not of its company."""
    try:
        override(base, {key: value})
    except ConfigError as error:
        for mistake in error.mistakes:
            if mistake.key == key or mistake.key.startswith(f"{key}."):
                yield Mistake(where, mistake.rule, f"search.{key}", mistake.got, mistake.suggestion)


def _dotted(data: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
