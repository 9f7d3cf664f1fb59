"""All rules of a cluster file, from what Ray's schema says to what Ray itself says in the end."""

import json
import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bbh_dist.cluster.files import aws, commands, local, secrets
from bbh_dist.cluster.files.document import ClusterFile, read_file
from bbh_dist.config.errors import ConfigError, Mistake, nearest

_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_PROVIDERS = {"aws": aws.mistakes, "local": local.mistakes}


def check_file(path: str | Path) -> ClusterFile:
    """The file, found to keep all rules; nothing is started and nobody is asked.

    Raises:
        ConfigError: it does not; all mistakes that were found, by line.
    """
    file = read_file(path)
    mistakes = [*secrets.mistakes(file), *_schema_mistakes(file)]
    if not mistakes:
        mistakes = [*_provider_mistakes(file), *commands.mistakes(file)]
    if mistakes:
        raise ConfigError(sorted(mistakes, key=_line))
    _ask_ray(file)
    return file


def _line(mistake: Mistake) -> int:
    number = mistake.where.rpartition(":")[2]
    return int(number) if number.isdigit() else 0


def _provider_mistakes(file: ClusterFile) -> Iterator[Mistake]:
    rules = _PROVIDERS.get(file.provider)
    if rules is None:
        suggestion = nearest(file.provider, _PROVIDERS)
        where = file.source.where(("provider", "type"))
        yield Mistake(where, "must be aws or local", "provider.type", file.provider, suggestion)
    else:
        yield from rules(file)


def _schema_mistakes(file: ClusterFile) -> Iterator[Mistake]:
    """What Ray's own schema refuses."""
    import jsonschema

    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    schema = json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    for error in jsonschema.Draft7Validator(schema).iter_errors(file.source.data):
        yield from _schema_mistake(file, error)


def _schema_mistake(file: ClusterFile, error: Any) -> Iterator[Mistake]:
    """A broken rule in our words. Values that might be secrets are not shown."""
    path = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        for key in error.instance:
            if key not in known:
                where = file.source.where((*path, key))
                yield Mistake(where, "unknown key", ".".join(map(str, (*path, key))), suggestion=nearest(key, known))
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        yield file.mistake(path, f"must have the key {', '.join(missing)}")
    elif error.validator == "type":
        kinds = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        yield file.mistake(path, f"must be {' or '.join(_TYPES.get(str(kind), str(kind)) for kind in kinds)}")
    elif error.validator == "minimum":
        yield file.mistake(path, f"must be at least {error.validator_value}", error.instance)
    else:
        yield file.mistake(path, f"breaks the rule {error.validator} of Ray's schema")


def _ask_ray(file: ClusterFile) -> None:
    """What Ray would do with the file before it starts anything.

    Raises:
        ConfigError: it refuses the file.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    logging.getLogger("ray.autoscaler").setLevel(logging.WARNING)
    try:
        validate_config(prepare_config(json.loads(json.dumps(file.source.data))))
    except Exception as error:
        reason = f"Ray refuses it: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ConfigError(file.mistake((), reason)) from error
