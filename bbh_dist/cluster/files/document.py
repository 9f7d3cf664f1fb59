"""A cluster file as data, and the lines that its keys stand on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbh_dist.config.errors import Mistake, shown
from bbh_dist.config.source import KeyPath, Source, read_source


@dataclass(frozen=True)
class ClusterFile:
    """A cluster file that Ray's schema takes."""

    source: Source
    lines: list[str]

    @property
    def provider(self) -> str:
        """Where the nodes come from: `aws`, `local` or another of Ray's."""
        return str(self.get("provider", "type"))

    @property
    def hosts(self) -> list[str]:
        """The head and the workers of one's own machines; none where a cloud makes them."""
        if self.provider != "local":
            return []
        return [self.get("provider", "head_ip"), *self.get("provider", "worker_ips", default=[])]

    def get(self, *path: str | int, default: Any = None) -> Any:
        """The value of a key, or the default where it or a parent is missing."""
        node: Any = self.source.data
        for part in path:
            if not isinstance(node, dict) or part not in node:
                return default
            node = node[part]
        return node

    def mapping(self, *path: str | int) -> dict[str, Any]:
        """The mapping at a key; empty where there is none."""
        node = self.get(*path)
        return node if isinstance(node, dict) else {}

    def commands(self, key: str) -> list[tuple[KeyPath, str]]:
        """The commands of a list, and the path of each."""
        return [((key, index), command) for index, command in enumerate(self.get(key, default=[]))]

    def texts(self) -> Iterator[tuple[KeyPath, str]]:
        """Every text of the file."""
        return _texts(self.source.data, ())

    def line(self, path: KeyPath) -> str:
        """The line, as it is written, on which a value begins."""
        number = self.source.where(path).rpartition(":")[2]
        return self.lines[int(number) - 1]

    def mistake(self, path: KeyPath, rule: str, got: object = None) -> Mistake:
        """A mistake at a key, or at the nearest parent that stands in the file."""
        value = None if got is None else shown(got)
        return Mistake(self.source.where(path), rule, key=".".join(map(str, path)), got=value)


def read_file(path: str | Path) -> ClusterFile:
    """A cluster file, not checked yet.

    Raises:
        ConfigError: as `read_source`.
    """
    source = read_source(path)
    # As YAML counts lines, which also ends one at these two letters.
    text = Path(path).read_text(encoding="utf-8").replace("\x85", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    return ClusterFile(source, [*text.split("\n"), ""])


def _texts(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    children: Any = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    elif isinstance(node, str):
        yield path, node
    for key, child in children:
        yield from _texts(child, (*path, key))
