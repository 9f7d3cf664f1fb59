"""The nodes of a cluster that stands: whether all are there, are alike, and see the same storage and tracking store."""

import platform
import shutil
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bbh_dist.cluster.files import ClusterFile, read_file
from bbh_dist.cluster.hosts import Login, log_tail
from bbh_dist.cluster.session import HEADS_FILE, check_address, cluster
from bbh_dist.command_line import RunFailed
from bbh_dist.config import DataError
from bbh_dist.masking import masked

VERSIONS = ("python", "ray", "torch", "bbh_dist")
_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 90.0

Answer = dict[str, str]
"""A node's address (`node`), its versions, and under `storage`, `tracking` and `data` what is wrong, if anything is.
Of one that gave none: `node` and `error`."""


def check_cluster(
    address: str, *, file: str | None, nodes: int | None, storage: str | None, tracking_uri: str | None, timeout: float
) -> Iterator[str]:
    """Check a cluster that stands; what was found to be right, line by line.

    `file` is the cluster's; without one, that which `ray up` leaves on the head.

    Raises:
        ConfigError: no cluster answers.
        RunFailed: a node is missing or differs, or does not see the storage or the tracking store.
    """
    if file is None and HEADS_FILE.exists():
        file = str(HEADS_FILE)
    described = None if file is None else read_file(file)
    check_address(address)
    with cluster(address, verbose=False):
        expected = nodes or (1 if described is None else _expected(described))
        alive = wait_for_nodes(expected, timeout, described)
        yield f"{len(alive)} nodes: {', '.join(alive.values())}"
        answers = ask_nodes(alive, storage, tracking_uri)
        problems = [*differences(answers), *_failures(answers, "storage"), *_failures(answers, "tracking")]
        if problems:
            raise RunFailed("; ".join(problems))
        yield "the same on all: " + ", ".join(f"{name} {answers[0][name]}" for name in VERSIONS)
        if storage is not None:
            yield f"{storage} is one folder on all nodes, and writable"
        if tracking_uri is not None:
            yield f"{masked(tracking_uri)} answers from all nodes"


def alive_nodes() -> dict[str, str]:
    """Id to address of the nodes that are up."""
    import ray

    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def wait_for_nodes(expected: int, timeout: float, file: ClusterFile | None) -> dict[str, str]:
    """Id to address of the cluster's nodes, once there are as many as expected.

    Raises:
        RunFailed: there are fewer when the time is over; the message names the missing hosts, with the tail of the
            log of each, or of the autoscaler's where it makes the hosts.
    """
    until = time.monotonic() + timeout
    while len(alive := alive_nodes()) < expected:
        if time.monotonic() > until:
            missing = "\n".join(_missing(set(alive.values()), file))
            raise RunFailed(f"{len(alive)} of {expected} nodes are there after {timeout:.0f} s\n{missing}")
        time.sleep(_POLL_SECONDS)
    return alive


def ask_nodes(
    nodes: dict[str, str],
    storage: str | None = None,
    tracking_uri: str | None = None,
    tasks: Sequence[str] = (),
    data: str = "",
    seconds: float = _ANSWER_SECONDS,
) -> list[Answer]:
    """What every node answers; `nodes` has the address of each id.

    A file is written where the storage is, or will be, which every node has to see and to put another beside; both
    are taken away again. The tasks' data are read from the folder `data`. They have so many `seconds` to answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = None if storage is None else Path(tempfile.mkdtemp(prefix=".bbh-check-", dir=_existing(Path(storage))))
    try:
        remote: Any = ray.remote(num_cpus=0, max_retries=0)(_answer)
        if folder is not None:
            (folder / "driver").touch()
        asked = {
            remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                None if folder is None else str(folder), node, tracking_uri, tasks, data
            ): node
            for node in nodes
        }
        ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
        return [{"node": nodes[node], **_collected(task, node, folder)} for task, node in asked.items()]
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def differences(answers: Sequence[Answer]) -> Iterator[str]:
    """Versions that are not the same on all nodes, and nodes that gave none."""
    for answer in answers:
        if "error" in answer:
            yield f"{answer['node']} answers nothing: {answer['error']}"
    for name in VERSIONS:
        found = [(answer["node"], answer[name]) for answer in answers if name in answer]
        if len({version for _, version in found}) > 1:
            each = ", ".join(f"{node} has {version}" for node, version in found)
            yield f"{name} must be the same on all nodes: {each}"


def _failures(answers: Sequence[Answer], what: str) -> Iterator[str]:
    return (f"{answer['node']}: {answer[what]}" for answer in answers if answer.get(what))


def _answer(folder: str | None, node: str, tracking_uri: str | None, tasks: Sequence[str], data: str) -> Answer:
    """Runs on a node."""
    versions = {name: metadata.version(name).partition("+")[0] for name in VERSIONS if name != "python"}
    answer = {"python": platform.python_version(), **versions}
    if folder is not None:
        answer["storage"] = _storage_problem(Path(folder), node)
    if tracking_uri is not None:
        answer["tracking"] = _tracking_problem(tracking_uri)
    if tasks:
        answer["data"] = _data_problem(tasks, Path(data))
    return answer


def _storage_problem(folder: Path, node: str) -> str:
    if not (folder / "driver").exists():
        return f"does not see {folder.parent} as the driver does: storage must be a folder that all nodes share"
    try:
        (folder / node).touch()
    except OSError as error:
        return f"cannot write to {folder.parent}: {error.strerror}"
    return ""


def _tracking_problem(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.hostname is None:
        return f"{masked(uri)} is a file: use a server that all nodes reach, see jobs/cluster_mlflow.sh"
    try:
        if parts.scheme in ("http", "https"):
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            place = host if parts.port is None else f"{host}:{parts.port}"
            urllib.request.urlopen(f"{parts.scheme}://{place}{parts.path.rstrip('/')}/health", timeout=10).close()
        else:
            socket.create_connection((parts.hostname, parts.port or 5432), timeout=10).close()
    except (OSError, ValueError) as error:
        return f"{masked(uri)} does not answer ({error})"
    return ""


def _data_problem(tasks: Sequence[str], data: Path) -> str:
    from bbh_dist.tasks import load_task

    try:
        for task in tasks:
            load_task(task, data)
    except (DataError, OSError) as error:
        return f"has no data as the driver has ({error})"
    return ""


def _collected(task: Any, node: str, folder: Path | None) -> Answer:
    """A node's answer, with what this process sees of it in the storage."""
    import ray

    try:
        answer: Answer = ray.get(task, timeout=0)
    except Exception as error:  # whatever it was that kept the node from answering
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return {"error": lines[-1][:200]}
    if folder is not None and not answer["storage"] and not (folder / node).exists():
        answer["storage"] = f"what it writes to {folder.parent} is not seen here: storage must be one folder"
    return answer


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that stands."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.is_dir())


def _expected(file: ClusterFile) -> int:
    """Nodes that `ray up` starts without being asked for more."""
    kinds = file.mapping("available_node_types").values()
    return len(file.hosts) or 1 + sum(kind.get("min_workers", 0) for kind in kinds)


def _missing(there: set[str], file: ClusterFile | None) -> Iterator[str]:
    """Hosts of the file that have not come; of a cloud, nodes that were lost, and why it makes no others."""
    import ray

    hosts = [] if file is None else [host for host in file.hosts if _address(host) not in there]
    for host in hosts:
        assert file is not None
        yield f"{host} is missing: {_indented(log_tail(Login.of(file), host).splitlines())}"
    if hosts:
        return
    lost = {node["NodeManagerAddress"] for node in ray.nodes() if not node["Alive"]} - there
    if lost:
        yield f"lost: {', '.join(sorted(lost))}"
    node: Any = ray._private.worker._global_node
    log = Path(node.get_session_dir_path()) / "logs" / "monitor.log"
    if log.exists():
        yield f"the autoscaler says: {_indented(log.read_text(encoding='utf-8', errors='replace').splitlines()[-8:])}"


def _indented(lines: Sequence[str]) -> str:
    return "".join(f"\n  {line}" for line in lines)


def _address(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError:
        return host
