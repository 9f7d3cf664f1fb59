"""The machine that `ray up` runs on and the hosts that it reaches over ssh: what must be there before it starts."""

import shutil
import stat
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bbh_dist.cluster.files import ClusterFile
from bbh_dist.cluster.files.aws import images_to_choose
from bbh_dist.cluster.files.commands import TOKEN
from bbh_dist.config import ConfigError, Mistake

_CONNECT_SECONDS, _ANSWER_SECONDS = 10, 30
_NEEDS = "command -v bash rsync > /dev/null && rsync --version > /dev/null || { echo rsync is missing >&2; exit 1; }"
# As Ray runs it: the PATH is that of ~/.bashrc.
_STOP = "bash --login -c -i 'source ~/.bashrc; ray stop'"
_LOGS = "cd /tmp/ray/session_latest/logs 2> /dev/null && tail -n {lines} -q raylet.err raylet.out | tail -n {lines}"


@dataclass(frozen=True)
class Login:
    """How to reach hosts over ssh, without a question being asked."""

    user: str | None = None
    key: str | None = None

    @classmethod
    def of(cls, file: ClusterFile) -> "Login":
        """The login of a cluster file."""
        return cls(file.get("auth", "ssh_user"), file.get("auth", "ssh_private_key"))

    def run(self, host: str, command: str) -> str:
        """What a command prints on a host.

        Raises:
            OSError: the host does not answer, refuses the login, or the command fails; the message says which.
        """
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
        # As `ray up` does it: a host that comes up anew under the same address has another key.
        options += ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        if self.key is not None:
            options += ["-i", str(Path(self.key).expanduser()), "-o", "IdentitiesOnly=yes"]
        user = [] if self.user is None else ["-l", self.user]
        try:
            done = subprocess.run(
                ["ssh", *options, *user, "--", host, command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_ANSWER_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"no answer over ssh within {_ANSWER_SECONDS} s") from error
        if done.returncode:
            reason = " ".join((done.stderr or done.stdout).split())[-200:] or f"exit code {done.returncode}"
            raise OSError(reason)
        return done.stdout


def still_to_do(file: ClusterFile) -> list[str]:
    """What is still to be done on this machine before `ray up`, one line each."""
    still = []
    secrets = {TOKEN: "the token", file.get("auth", "ssh_private_key"): "the key of ssh"}
    for path, name in secrets.items():
        if path is None:
            continue
        place = Path(path).expanduser()
        if not place.exists():
            make = "(umask 077; ray get-auth-token --generate) makes it" if path == TOKEN else "it is missing"
            still.append(f"{name}, {path}: {make}")
        elif stat.S_IMODE(place.stat().st_mode) & 0o077:
            mode = f"{stat.S_IMODE(place.stat().st_mode):04o}"
            still.append(f"{name}, {path}: others may read it ({mode}), chmod 600 {path}")
    still += [f"{tool}: it is missing on this machine" for tool in ("ssh", "rsync") if shutil.which(tool) is None]
    images = [
        f"{place}: choose an ImageId of your region, as the comment above it says" for place in images_to_choose(file)
    ]
    return still + images


def check_hosts(file: ClusterFile) -> None:
    """See that every host lets `ray up` in over ssh and has what it needs.

    Raises:
        ConfigError: one does not; the line of the file and the reason.
    """
    _on_every_host(file, lambda host: _failure(Login.of(file), host, _NEEDS))


def stop_hosts(file: ClusterFile) -> None:
    """Stop Ray on every host of one's own, as `ray down` does on the head alone.

    Raises:
        ConfigError: a host does not answer; the line of the file and the reason.
    """
    _on_every_host(file, lambda host: _failure(Login.of(file), host, _STOP))


def log_tail(login: Login, host: str, lines: int = 8) -> str:
    """The last lines that Ray wrote on a host, or why they cannot be had."""
    try:
        return login.run(host, _LOGS.format(lines=lines)).rstrip() or "Ray has written nothing there"
    except OSError as error:
        return f"its log cannot be read over ssh: {error}"


def _on_every_host(file: ClusterFile, problem: Callable[[str], str]) -> None:
    """Ask all hosts at once.

    Raises:
        ConfigError: there is a problem with some; the line of each.
    """
    hosts = file.hosts
    places = [("provider", "head_ip"), *(("provider", "worker_ips", index) for index in range(len(hosts) - 1))]
    with ThreadPoolExecutor(max_workers=16) as threads:
        problems = list(threads.map(problem, hosts))
    mistakes = [
        Mistake(file.source.where(place), found, key=".".join(map(str, place)), got=host)
        for host, place, found in zip(hosts, places, problems, strict=True)
        if found
    ]
    if mistakes:
        raise ConfigError(mistakes)


def _failure(login: Login, host: str, command: str) -> str:
    """Why a command fails on a host; empty where it does not."""
    try:
        login.run(host, command)
    except OSError as error:
        return f"must answer over ssh ({error})"
    return ""
