"""YAML as data plus the line of every key: safe, bounded, without the surprises of YAML 1.1.

Refused: tags, anchors and aliases (alias bombs), duplicate keys, keys that are not text, several documents,
more than a megabyte, more than 32 levels. `1e-3` is a number, `010` is ten and `no` is a word, as in YAML 1.2.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bbh_dist.config.errors import ConfigError, Mistake, shown

KeyPath = tuple[str | int, ...]

_LARGEST_FILE_BYTES = 1_000_000
_DEEPEST_LEVEL = 32
_NO_FILE = "--set"


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that no configuration needs; the problem is the rule."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema, in decimal, a tree of bounded depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node with all below it."""
        event = self.peek_event()
        if event.anchor is not None:
            raise _RefusedError(problem="anchors and aliases are not supported", problem_mark=event.start_mark)
        if self.depth > _DEEPEST_LEVEL:
            rule = f"must be nested at most {_DEEPEST_LEVEL} levels deep"
            raise _RefusedError(problem=rule, problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:null|Null|NULL|~|)$"), ["n", "N", "~", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or `_Loader` would read as something else."""


for _first, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _pattern, [_first])


@dataclass
class Source:
    """A mapping read from a file or given on the command line, and where each key stands."""

    name: str
    data: dict[str, Any]
    places: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath) -> str:
        """`file:line` of a key, or of the nearest parent that stands in the file."""
        for end in range(len(path), -1, -1):
            if (place := self.places.get(path[:end])) is not None:
                return place
        return self.name

    def set(self, path: Sequence[str], value: Any, place: str) -> None:
        """Put a value from the command line at a key, making the mappings on the way."""
        node = self.data
        for depth, part in enumerate(path[:-1]):
            if part not in node:
                node[part] = {}
                self.places[tuple(path[: depth + 1])] = place
            child = node[part]
            if not isinstance(child, dict):
                key = ".".join(path[: depth + 1])
                raise ConfigError(Mistake(place, "has no keys below it", key=key, got=shown(child)))
            node = child
        node[path[-1]] = value
        for known in [known for known in self.places if known[: len(path)] == tuple(path)]:
            del self.places[known]
        self.places[tuple(path)] = place


def read_source(path: str | Path) -> Source:
    """The file's mapping with the line of every key.

    Raises:
        ConfigError: the file is missing, unreadable, too large, not UTF-8, not YAML or not a mapping.
    """
    name = str(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(_LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(Mistake(name, f"cannot be read: {reason}")) from error
    if len(raw) > _LARGEST_FILE_BYTES:
        raise ConfigError(Mistake(name, f"the file must be at most {_LARGEST_FILE_BYTES} bytes"))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(Mistake(f"{name}:{line}", "must be UTF-8 text")) from error
    places: dict[KeyPath, str] = {(): f"{name}:1"}
    data = _parse(text, name, places)
    if data is None:
        raise ConfigError(Mistake(f"{name}:1", "the file is empty, a mapping is expected"))
    if not isinstance(data, dict):
        raise ConfigError(Mistake(f"{name}:1", "a mapping is expected at the top", got=shown(data)))
    return Source(name, data, places)


def write_source(data: dict[str, Any]) -> str:
    """Plain data as YAML text that `read_source` reads back as it was."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """The dotted key, split, and the value of `KEY=VALUE`; the value is read as YAML.

    Raises:
        ConfigError: no `=`, an empty key, or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        rule = "must be KEY=VALUE with a dotted key, as in optimizer.lr=1e-3"
        raise ConfigError(Mistake(_NO_FILE, rule, got=shown(text)))
    return parts, _parse(value, f"{_NO_FILE} {shown(text)[1:-1]}", None, tuple(parts))


def _parse(text: str, name: str, places: dict[KeyPath, str] | None, path: KeyPath = ()) -> Any:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            return None if node is None else _Builder(name, places, loader).build(node, path)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark and places is not None else name
        raise ConfigError(Mistake(where, _yaml_rule(error))) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        where = f"{name}:{line}" if places is not None else name
        raise ConfigError(Mistake(where, "this character is not allowed", got=shown(chr(error.character)))) from error


def _yaml_rule(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's context and problem, with words of our own for the two that puzzle most."""
    problem = error.problem or "unreadable"
    if isinstance(error, _RefusedError):
        return problem
    if r"found character '\t'" in problem:
        return "tabs are not allowed here, use spaces"
    if problem == "but found another document":
        return "must be one document, a second one starts here"
    story = ", ".join(part for part in (error.context, problem) if part)
    return f"not valid YAML: {' '.join(story.split())}"


def _is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair stands alone, as an escape in YAML may write it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


class _Builder:
    """Turns YAML nodes into plain data, keeping lines and refusing what a configuration needs not."""

    def __init__(self, name: str, places: dict[KeyPath, str] | None, loader: _Loader) -> None:
        self.name, self.places, self.loader = name, places, loader

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.check_plain(node, path)
        if self.places is not None:
            self.places.setdefault(path, self.at(node))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        return self.scalar(node, path)

    def check_plain(self, node: yaml.Node, path: KeyPath) -> None:
        """Refuse a node whose tag is not the one that its text implies."""
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if node.tag != self.loader.resolve(type(node), node.value, (is_plain, not is_plain)):
            raise self.mistake(node, path, "tags are not supported", node.tag.replace("tag:yaml.org,2002:", "!!"))

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
                raise self.mistake(key_node, path, "keys must be text")
            self.check_plain(key_node, path)
            key = key_node.value
            if not _is_unicode(key):
                raise self.mistake(key_node, (*path, key), "keys must be Unicode text")
            if key in result:
                raise self.mistake(key_node, (*path, key), "this key stands twice")
            if self.places is not None:
                self.places[(*path, key)] = self.at(key_node)
            result[key] = self.build(value_node, (*path, key))
        return result

    def scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        try:
            value = self.loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            raise self.mistake(node, path, "not a readable value", shown(node.value)) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise self.mistake(node, path, "must be a finite number", node.value)
        if isinstance(value, str) and not _is_unicode(value):
            raise self.mistake(node, path, "must be Unicode text", shown(value))
        return value

    def at(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}" if self.places is not None else self.name

    def mistake(self, node: yaml.Node, path: KeyPath, rule: str, got: str | None = None) -> ConfigError:
        return ConfigError(Mistake(self.at(node), rule, key=".".join(map(str, path)), got=got))
