"""Mistakes in what a user gave, as lines that say where, what the rule is, and what was found."""

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_LONGEST_VALUE = 60
_LONGEST_KEY = 160


@dataclass(frozen=True)
class Mistake:
    """One mistake: `where: key: rule, got value (did you mean suggestion?)`, parts left out where absent."""

    where: str
    rule: str
    key: str = ""
    got: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        """The mistake in one line; what a terminal cannot show stands escaped."""
        where = _shortened(self.where, _LONGEST_KEY) if self.where.startswith("--") else self.where
        parts = [where, _shortened(self.key, _LONGEST_KEY), self.rule]
        line = ": ".join(part for part in parts if part)
        if self.got is not None:
            line += f", got {self.got}"
        if self.suggestion is not None:
            line += f" (did you mean {self.suggestion}?)"
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


class ConfigError(Exception):
    """Bad input. Command lines print one line per mistake and exit with code 2."""

    def __init__(self, mistakes: Mistake | Sequence[Mistake]) -> None:
        self.mistakes = (mistakes,) if isinstance(mistakes, Mistake) else tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class DataError(Exception):
    """Data that is missing or not what it should be. Command lines print it in one line and exit with code 2."""


class RuleError(ValueError):
    """A rule that a validator found broken, with what a plain message cannot carry to a `Mistake`."""

    def __init__(self, rule: str, *, key: str = "", got: object = None, suggestion: str | None = None) -> None:
        super().__init__(rule)
        self.rule, self.key, self.suggestion = rule, key, suggestion
        self.got = None if got is None else shown(got)


def shown(value: Any) -> str:
    """Value as it would stand in a file, on one line and not longer than a glance."""
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = ascii(value)
    return _shortened(text, _LONGEST_VALUE)


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that a mistyped one most resembles, or None."""
    matches = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
