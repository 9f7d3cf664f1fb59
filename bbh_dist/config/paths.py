"""What a path must be before anything is done with it."""

_LONGEST_PATH, _LONGEST_NAME = 4095, 255
"""Bytes that Linux takes."""


def path_rule(path: str) -> str | None:
    """The rule that a path breaks, if it breaks one. Whether there is anything at it is not looked at."""
    if not path:
        return "must not be empty"
    if not path.isprintable():  # control characters, bytes that are no UTF-8, marks that turn the reading direction
        return "must be printable text"
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_NAME for part in path.split("/")):
        return f"must have at most {_LONGEST_PATH} bytes, each name in it at most {_LONGEST_NAME}"
    return None
