"""Rules for one's own machines, which Ray reaches over ssh."""

import ipaddress
from collections.abc import Iterator

from bbh_dist.cluster.files.commands import start_command
from bbh_dist.cluster.files.document import ClusterFile
from bbh_dist.config.errors import Mistake

_V1 = "RAY_enable_autoscaler_v2=0"


def mistakes(file: ClusterFile) -> Iterator[Mistake]:
    """What is wrong with the hosts, the login, and how many of them start."""
    for key in ("available_node_types", "head_node_type"):
        if key in file.source.data:
            yield file.mistake((key,), "must be left out: one's own machines are not of types")
    yield from _hosts(file)
    if not file.get("auth", "ssh_user"):
        yield file.mistake(("auth",), "must have ssh_user, the login on every host")
    found = start_command(file, "head_start_ray_commands")
    if found is not None and _V1 not in found[1]:
        rule = f"must set {_V1} before ray start: with Ray 2.60's second autoscaler no worker of these starts"
        yield file.mistake(found[0], rule)
    yield from _counts(file)


def _hosts(file: ClusterFile) -> Iterator[Mistake]:
    head, workers = file.get("provider", "head_ip"), file.get("provider", "worker_ips")
    if not head:
        yield file.mistake(("provider",), "must have head_ip, the address of the machine that Ray's head runs on")
    if not workers:
        yield file.mistake(("provider",), "must have worker_ips, the addresses of at least one more machine")
    seen = {head}
    if head:
        yield from _host(file, ("provider", "head_ip"), head)
    for index, host in enumerate(workers or []):
        path = ("provider", "worker_ips", index)
        if not isinstance(host, str):
            yield file.mistake(path, "must be text, a host's address")
            continue
        if host in seen:
            yield file.mistake(path, "this host stands twice", host)
        seen.add(host)
        yield from _host(file, path, host)


def _host(file: ClusterFile, path: tuple[str | int, ...], host: str) -> Iterator[Mistake]:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost" and host.replace("-", "").replace(".", "").isalnum() and host[0] not in "-.":
            return
        yield file.mistake(path, "must be a host's address or name", host)
        return
    if address.is_loopback or address.is_unspecified:
        yield file.mistake(path, "must be an address that the other hosts reach", host)


def _counts(file: ClusterFile) -> Iterator[Mistake]:
    """Ray starts all hosts or, with fewer workers at most, some of them: none may stand idle unseen."""
    hosts, most = len(file.get("provider", "worker_ips") or []), file.get("max_workers")
    if most is not None and most != hosts:
        yield file.mistake(("max_workers",), f"must be left out, or {hosts}, as many as worker_ips has", most)
