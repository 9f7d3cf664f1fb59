"""Which addresses the processes of a tree listen at, from Linux's /proc."""

import contextlib
import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"


def listening(root: int) -> dict[str, set[str]]:
    """Address to the names of the processes below (and with) a process that listen there, TCP."""
    sockets = dict(_sockets())
    found: dict[str, set[str]] = {}
    for process in _tree(root):
        for inode in _inodes(process):
            if inode in sockets:
                found.setdefault(sockets[inode], set()).add(_name(process))
    return found


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    found = ipaddress.ip_address(address)
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _tree(root: int) -> list[int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    tree = [root]
    for process in tree:
        tree += [child for child, parent in parents.items() if parent == process]
    return tree


def _inodes(process: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{process}/fd/{name}")
                if target.startswith("socket:["):
                    yield target[8:-1]


def _name(process: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().strip()
    return "?"


def _sockets() -> Iterator[tuple[str, str]]:
    """Inode and address of every socket that listens."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                words = bytes.fromhex(fields[1].partition(":")[0])
                raw = b"".join(
                    words[at : at + 4][:: -1 if sys.byteorder == "little" else 1] for at in range(0, len(words), 4)
                )
                yield fields[9], str(ipaddress.ip_address(raw))
