"""Rules of the commands that start Ray: nobody without the token, the dashboard on loopback, nothing cut off."""

import re
from collections.abc import Iterator

from bbh_dist.cluster.files.document import ClusterFile
from bbh_dist.config.errors import Mistake
from bbh_dist.config.source import KeyPath

_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
TOKEN = "~/.ray/auth_token"
_TOKEN_MODE = re.compile(r"\bRAY_AUTH_MODE=[\"']?token\b")
_PRIVATE = re.compile(r"\bchmod\s+(?:-\w+\s+)?0?[46]00\s+\S*\.ray/auth_token\b")
_DASHBOARD = re.compile(r"--dashboard-host[=\s]+[\"']?([^\s\"';]+)")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def mistakes(file: ClusterFile) -> Iterator[Mistake]:
    """What is wrong with the commands and with the token that they need."""
    yield from _cut_commands(file)
    yield from _token_file(file)
    yield from _start(file, "head_start_ray_commands", "--head")
    yield from _start(file, "worker_start_ray_commands", "--address")


def start_command(file: ClusterFile, key: str) -> tuple[KeyPath, str] | None:
    """The command of a list that starts Ray, and its path."""
    return next(((path, text) for path, text in file.commands(key) if re.search(r"\bray start\b", text)), None)


def _cut_commands(file: ClusterFile) -> Iterator[Mistake]:
    for key in _LISTS:
        for path, _ in file.commands(key):
            written = file.line(path).strip().removeprefix("- ").strip()
            if not written.startswith(("'", '"', "|", ">")) and re.search(r"\s#", written):
                yield file.mistake(path, "YAML cuts a command off at ' #': quote it, or put the comment above it")


def _token_file(file: ClusterFile) -> Iterator[Mistake]:
    mounts = [path for path in file.mapping("file_mounts") if str(path).endswith("/.ray/auth_token")]
    if not mounts:
        rule = f"must have {TOKEN}: {TOKEN}, without which no worker may join"
        yield file.mistake(("file_mounts",), rule)
    shared = any(_PRIVATE.search(text) for _, text in file.commands("setup_commands"))
    each = ("head_setup_commands", "worker_setup_commands")
    if not shared and not all(any(_PRIVATE.search(text) for _, text in file.commands(key)) for key in each):
        yield file.mistake(("setup_commands",), f"must have chmod 600 {TOKEN}, which rsync may leave open to others")


def _start(file: ClusterFile, key: str, option: str) -> Iterator[Mistake]:
    """The rules of the command that starts Ray on a kind of node."""
    found = start_command(file, key)
    if found is None:
        yield file.mistake((key,), "must have a command with ray start: Ray's own asks for no token")
        return
    path, text = found
    if option not in text:
        yield file.mistake(path, f"ray start must have {option}")
    has_token = _TOKEN_MODE.search(text) is not None
    if not has_token:
        rule = "must set RAY_AUTH_MODE=token before ray start: whoever reaches the port runs any code otherwise"
        yield file.mistake(path, rule)
    hosts = [host for host in _DASHBOARD.findall(text) if host not in _LOOPBACK]
    if hosts and not has_token:
        yield file.mistake(path, "--dashboard-host must be 127.0.0.1 without token authentication", hosts[0])
    if key.startswith("head") and "--autoscaling-config" not in text:
        yield file.mistake(
            path, "ray start must have --autoscaling-config=~/ray_bootstrap_config.yaml: no worker comes"
        )
