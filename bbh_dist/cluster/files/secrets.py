"""No secret in a cluster file: it is copied to every node, cached by Ray, and shared like code."""

import re
from collections.abc import Iterator

from bbh_dist.cluster.files.document import ClusterFile
from bbh_dist.config.errors import Mistake

_NAME = r"(?:token|secret|passw(?:or)?d|api_?key|access_?key(?:_?id)?)"
_TEXTS = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a URI with a password": re.compile(r"://[^/\s:@]*:[^/\s@$]+@"),
    "a token": re.compile(r"(?<![0-9A-Za-z/_-])[0-9a-fA-F]{32,128}(?![0-9A-Za-z])"),
    # What is read from a file or a variable when the command runs is none: $(cat FILE), "$TOKEN", ~/token.
    "a secret that is set": re.compile(rf"(?i)\w*{_NAME}\s*[=:]\s*[\"']?(?![\"'$~/(<{{]|None\b|null\b)\S{{4,}}"),
}
_KEY = re.compile(rf"(?i)\w*{_NAME}")
_PATH = re.compile(r"[~/$.]")


def mistakes(file: ClusterFile) -> Iterator[Mistake]:
    """Where something stands that only a secret looks like; the mistake does not repeat it."""
    for path, text in file.texts():
        kind = next((kind for kind, pattern in _TEXTS.items() if pattern.search(text)), None)
        if kind is None and _KEY.fullmatch(str(path[-1])) and not _PATH.match(text):
            kind = "a secret"
        if kind is not None:
            yield file.mistake(path, f"looks like {kind}: must stand in a file of its owner's alone (0600), not here")
