"""Passwords out of what is printed, logged or stored as a tag."""

import re

# Up to the last @ of a word: a password may hold one, and / and : as well.
_CREDENTIALS = re.compile(r"(://[^/:@\s]*):\S*@")
# A word where a port should be is a password whose host was forgotten.
_NO_PORT = re.compile(r"(://[^/:@\s\[]+):(?!\*\*\*@)(?!\d{1,5}(?:[/?#\s,;'\")\]]|$))[^/?#\s]+")
_PARAMETER = re.compile(r"([?&][\w.-]*(?:password|passwd|pwd|secret|token)[\w.-]*=)[^&\s]*", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with the password of every URI in it replaced: `postgresql://me:***@host/db`.

    Also a password among the parameters of a URI, `?password=***`.
    """
    text = _CREDENTIALS.sub(r"\1:***@", text)
    text = _NO_PORT.sub(r"\1:***", text)
    return _PARAMETER.sub(r"\1***", text)
