"""Versions below which a package that we stand on has known security holes."""

from importlib import metadata

from bbh_dist.config import ConfigError, Mistake

FLOORS = {"ray": (2, 54), "mlflow": (3, 10), "torch": (2, 10)}
"""Least major and minor version; pyproject.toml has the same."""


def check_floors() -> None:
    """See that no package is older than its floor. Nothing is imported; what is not installed is passed over.

    Raises:
        ConfigError: a line for each that is.
    """
    mistakes = [mistake for name in FLOORS if (mistake := _mistake(name)) is not None]
    if mistakes:
        raise ConfigError(mistakes)


def _mistake(name: str) -> Mistake | None:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    least = FLOORS[name]
    if _number(version) >= least:
        return None
    floor = ".".join(map(str, least))
    rule = f"must be at least {floor}, older ones have known security holes: pip install -c constraints.txt {name}"
    return Mistake(name, rule, got=version)


def _number(version: str) -> tuple[int, ...]:
    """Major and minor of `2.13.0+cpu`; nothing, which is below every floor, of what does not begin with them."""
    parts = version.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()
