"""Passwords out of what is printed, logged or stored as a tag."""

import re

_CREDENTIALS = re.compile(r"(://[^/:@\s]*):[^/@\s]*@")


def masked(text: str) -> str:
    """The text with the password of every URI in it replaced: `postgresql://me:***@host/db`."""
    return _CREDENTIALS.sub(r"\1:***@", text)
