"""Hosts made of namespaces, joined by a bridge that leads nowhere else: for tests of whole clusters on one machine."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SCRIPT = Path(__file__).with_name("namespace_host.sh")
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def missing() -> str:
    """What this machine lacks for such hosts; empty where it has all."""
    tools = [tool for tool in ("ip", "unshare", "nsenter", "setpriv", "rsync", "ssh", "ssh-keygen") if not _has(tool)]
    tools += [] if Path("/usr/sbin/sshd").exists() else ["sshd (openssh-server)"]
    if os.geteuid() != 0:
        return "hosts of namespaces need root"
    if tools:
        return f"hosts of namespaces need {', '.join(tools)}"
    tried = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "ip", "link"], capture_output=True)
    return "" if tried.returncode == 0 else "this machine lets nobody make namespaces"


def until(condition: Callable[[], object], what: str, seconds: float = 900) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.5)


class Network:
    """Hosts by name, each with an address of 10.77.0.0/24 and a shared folder at /mnt."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self.folder, self.addresses = folder, addresses
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.pids: dict[str, int] = {}
        self._write_files()
        self._start("bridge", ["unshare", "--net", "--fork", "--kill-child", "sleep", "infinity"])
        self._ip("link", "add", "bridge", "type", "bridge")
        self._ip("link", "set", "bridge", "up")
        for name in addresses:
            self._add(name)

    def _write_files(self) -> None:
        (self.folder / "shared").mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.folder / "key"], check=True)
        shutil.copy(self.folder / "key.pub", self.folder / "authorized_keys")
        shutil.copy(ROOT / "constraints.txt", self.folder)
        (self.folder / "prefix").write_text(sys.prefix)
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.addresses.items())]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")
        keep = {str(Path(path).resolve()) for path in (sys.base_prefix, sys.prefix, ROOT)}
        hidden = sorted(path for path in keep if path.startswith(("/root/", "/tmp/")))
        (self.folder / "keep").write_text("".join(f"{path}\n" for path in hidden))

    def _add(self, name: str) -> None:
        namespaces = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        host = ["sh", str(_SCRIPT), str(self.folder), name, self.addresses[name]]
        self._start(name, ["unshare", *namespaces, *host])
        link = f"to-{name}"
        self._ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(self.pids[name]))
        self._ip("link", "set", link, "master", "bridge", "up")

    def _start(self, name: str, command: list[str]) -> None:
        """Start the first process of a host and find its number, which is that of the only child."""
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [*_DIES_WITH_US, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.processes[name] = process
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: children.read_text().split(), f"the first process of {name}")
        self.pids[name] = int(children.read_text().split()[0])

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.pids["bridge"]), "-n", "ip", *arguments], check=True)

    def command(self, name: str, *command: str, **environment: str) -> list[str]:
        """A command line that runs on a host, with the project's folder as its own."""
        path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        variables = {"HOME": "/root", "PATH": path, "LANG": "C.UTF-8", **environment}
        enter = ["nsenter", "-t", str(self.pids[name]), "-n", "-m", "-p", "-u", "-i", f"--wd={ROOT}", "--"]
        return [*_DIES_WITH_US, *enter, "env", "-i", *(f"{key}={value}" for key, value in variables.items()), *command]

    def run(self, name: str, *command: str, seconds: float = 900, **environment: str) -> str:
        """What a command prints on a host, which must succeed."""
        done = subprocess.run(
            self.command(name, *command, **environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"{name}: {' '.join(command)}\n{done.stdout}"
        return done.stdout

    def start(self, name: str, *command: str, log: str, **environment: str) -> "subprocess.Popen[bytes]":
        """Start a command on a host; what it prints goes to a file of the folder."""
        with open(self.folder / log, "wb") as file:
            return subprocess.Popen(
                self.command(name, *command, **environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def processes_of(self, name: str) -> list[str]:
        """Command lines of all that runs on a host."""
        return self.run(name, "ps", "-eo", "args", "--no-headers").splitlines()

    def kill(self, name: str) -> None:
        """Cut a host off, with all that runs on it."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End all hosts, the bridge last."""
        for name in reversed(list(self.processes)):
            self.kill(name)


def _has(tool: str) -> bool:
    return shutil.which(tool) is not None
