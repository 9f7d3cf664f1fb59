"""URIs of tracking stores: what is known to go wrong is refused before a library sees them."""

import os
import re
import socket
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from bbh_dist.config import ConfigError, Mistake
from bbh_dist.config.errors import shown
from bbh_dist.config.paths import path_rule
from bbh_dist.masking import masked

_FILE = "sqlite:///"
_PORTS = {"postgresql": 5432, "postgres": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}
_TIMEOUT_SECONDS = 3.0


def check_tracking_uri(given: str | None) -> None:
    """See that the given URI, else the environment's, can be a store's.

    Raises:
        ConfigError: it cannot.
    """
    if given is not None:
        check_uri(given, "--tracking-uri")
    elif found := os.environ.get("MLFLOW_TRACKING_URI"):
        check_uri(found, "MLFLOW_TRACKING_URI")


def check_uri(uri: str, where: str, key: str = "") -> None:
    """See that a URI can be a store's; `where` and `key` say where it stands.

    A database server has to answer at its port: SQLAlchemy tries for minutes.

    Raises:
        ConfigError: it cannot.
    """
    rule = _rule(uri)
    if rule is not None:
        # Passwords are masked in words, so that one with a space would be in part.
        raise ConfigError(Mistake(where, rule, key, got=shown(masked(re.sub(r"\s", "%20", uri)))))


def _rule(uri: str) -> str | None:
    if not uri or not uri.isprintable():
        return "must not be empty" if not uri else "must be printable text"
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        return _file_rule(uri)
    if "://" not in uri:
        return path_rule(uri)
    if " " in uri:
        return "must have %20 for a space"
    try:
        parts = urlsplit(uri)
        if parts.netloc.count("@") > 1:
            return "must have %40 for an @ in a password"
        return _server_rule(scheme, parts, parts.port)
    except ValueError:  # of a bad port or address; its words may hold a password
        return "must have a host and a port that can be, and in a password %2F for a / and %3A for a :"


def _file_rule(uri: str) -> str | None:
    if not uri.startswith(_FILE) or uri == _FILE:
        return f"must be {_FILE}FILE, as in {_FILE}mlflow.db"
    path = uri.removeprefix(_FILE)
    rule = path_rule(path)
    if rule is None and Path(path).is_dir():
        return "must name a file, not a folder"
    return rule


def _server_rule(scheme: str, parts: SplitResult, port: int | None) -> str | None:
    if scheme in ("http", "https"):
        return None if parts.hostname else "must name a host"
    if scheme not in _PORTS or not parts.hostname:  # of a database without one, the socket is among the parameters
        return None
    try:
        socket.create_connection((parts.hostname, port or _PORTS[scheme]), timeout=_TIMEOUT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"no database answers there ({reason})"
    return None
