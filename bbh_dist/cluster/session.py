"""A connection to a Ray cluster, one that is started here or one that stands, and what fits on it."""

import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from bbh_dist.cluster.temporary import check_temporary, temporary_folder
from bbh_dist.config import ConfigError, Mistake, Parallel
from bbh_dist.provenance import cores, loopback

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Result files, sync warnings and progress prints of Tune: the tracking store and the live table stand in their place.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
# A trial that fails reports its reason and no metric.
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
# More than one: a trial is asked for as many results as it likes to report together.
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "2")
# How soon the start, the end and the loss of workers are noticed; the default is 2 s.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
# Workers are asked for where there is room, so one that does not come was counted on a node that is lost, or another
# run was quicker.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30")
# Processes that runs don't need: one that tells workers of a preemption to come, as a loss is noticed when it happens;
# and, on a cluster started here, a worker a core in advance, as trials need others, with an environment of their own.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
# Ray otherwise overrides CUDA_VISIBLE_DEVICES for tasks that ask for no GPU, with a warning on every start.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

HEADS_FILE = Path("~/ray_bootstrap_config.yaml").expanduser()
"""Where `ray up` leaves the cluster's file on the head."""
_HEAD = "node:__internal_head__"
_FOR_ACTORS = (
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S",
)


@dataclass(frozen=True)
class Resources:
    """CPU cores and GPUs, of a cluster or that a job needs."""

    cpus: int
    gpus: int = 0
    nodes: tuple["Resources", ...] = ()
    """Each node's, of a cluster: a worker runs on one of them."""


def needs(parallel: Parallel, workers: int) -> Resources:
    """What a training run of so many workers holds while it runs; the driver of several workers holds nothing."""
    return Resources(workers * (parallel.cpus_per_worker or 1), workers if parallel.use_gpu else 0)


def concurrency(parallel: Parallel, available: Resources) -> int:
    """How many such runs the cluster holds at once, each with all the workers that it takes; one that gets fewer if
    none does.

    Raises:
        ConfigError: not even one with the fewest workers; the message has the arithmetic.
    """
    workers, cpus_each = parallel.min_workers, parallel.cpus_per_worker or 1
    least = needs(parallel, workers)
    if least.cpus > available.cpus:
        sum_ = f"{workers} workers x {cpus_each} CPUs = {least.cpus} CPUs, the cluster has {available.cpus}"
        raise ConfigError(Mistake("does not fit", f"a run needs {sum_}", key="parallel.workers"))
    if least.gpus > available.gpus:
        sum_ = f"{workers} workers x 1 GPU = {least.gpus} GPUs, the cluster has {available.gpus}"
        raise ConfigError(Mistake("does not fit", f"a run needs {sum_}", key="parallel.use_gpu"))
    each = [_workers_on(node, parallel) for node in available.nodes or (available,)]
    if sum(each) < workers:
        sum_ = f"{workers} workers of {cpus_each} CPUs{' and a GPU' * parallel.use_gpu}"
        rule = f"a run needs {sum_}, the cluster's {len(each)} nodes hold {' + '.join(map(str, each))}"
        raise ConfigError(Mistake("does not fit", rule, key="parallel.cpus_per_worker"))
    return max(1, sum(each) // parallel.max_workers)


def _workers_on(node: Resources, parallel: Parallel) -> int:
    """Workers that a node holds; none is split over two."""
    fits = node.cpus // (parallel.cpus_per_worker or 1)
    return min(fits, node.gpus) if parallel.use_gpu else fits


def local_resources() -> Resources:
    """What a cluster that is started here will have: this process's cores and the visible GPUs."""
    import torch

    return Resources(cores(), torch.cuda.device_count())


def check_address(address: str) -> None:
    """See that something listens where a cluster is said to be; `auto` is left to Ray.

    Raises:
        ConfigError: nothing does, or the address is Ray Client's, whose driver runs elsewhere.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not (port.isascii() and port.isdecimal()):
        raise ConfigError(Mistake("--address", "must be auto or HOST:PORT of the head node", got=address))
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ConfigError(Mistake("--address", f"no Ray cluster answers ({error})", got=address)) from error


@contextlib.contextmanager
def cluster(address: str | None, verbose: bool) -> Iterator[Resources]:
    """Connect to a cluster, or start one on this machine, and disconnect or stop it at the end.

    A cluster that is started here demands a token that only this process and its children know, listens on
    loopback, has no dashboard, and keeps its files in a temporary folder that goes with it.

    Raises:
        ConfigError: the cluster does not answer.
    """
    if address is None:
        _close_to_others()
    import ray

    quiet = logging.INFO if verbose else logging.ERROR
    if address is not None:
        try:
            # Trials run Ray Train in actors of theirs, which must know these settings on every node.
            known = {name: os.environ[name] for name in _FOR_ACTORS}
            with _own_signals():
                ray.init(
                    address=address,
                    log_to_driver=verbose,
                    logging_level=quiet,
                    runtime_env={"env_vars": known},
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(Mistake("--address", f"no Ray cluster answers ({reason})", got=address)) from error
        try:
            yield _cluster_resources()
        finally:
            _shut_down()
        return
    available = local_resources()
    with temporary_folder() as folder:
        try:
            with _own_signals():
                ray.init(
                    num_cpus=available.cpus,
                    num_gpus=available.gpus,
                    include_dashboard=False,
                    log_to_driver=verbose,
                    logging_level=quiet,
                    _temp_dir=str(folder),
                    _node_ip_address="127.0.0.1",
                )
            yield available
        finally:
            _shut_down()


def _shut_down() -> None:
    """Disconnect from Ray, and stop it where it was started here, while no thread collects garbage.

    What refers to Ray's objects tells Ray when it is freed. If a thread, as that which talks to the tracking store,
    happens to collect such garbage at the moment at which Ray is gone and does not know it yet, Ray ends the process.
    """
    import ray

    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if collects:
            gc.enable()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handling of SIGTERM, which `ray.init` replaces by an exit without clean-up."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _close_to_others() -> None:
    """Have the cluster that is started here listen on loopback only and demand a token of its own.

    Ray reads all this when it is imported. On Linux it takes an address of 127.0.0.1 for a mistake, puts the machine's
    in its place and listens to all, unless it is told as on macOS that there is no more than this machine. Left is
    the TCPStore by which torch's workers meet: it listens to all, whatever one sets.
    """
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback())
    check_temporary()
    if "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _cluster_resources() -> Resources:
    """What the cluster has, or may have once it has grown."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    heads = [_resources(node) for node in alive if _HEAD in node]
    workers = [_resources(node) for node in alive if _HEAD not in node]
    nodes = (*heads, *max(workers, nodes_to_come(), key=lambda some: sum(node.cpus + node.gpus for node in some)))
    return Resources(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes), nodes)


def _resources(of: dict[str, float]) -> Resources:
    return Resources(int(of.get("CPU", 0)), int(of.get("GPU", 0)))


def nodes_to_come(path: Path = HEADS_FILE) -> list[Resources]:
    """The workers of a cluster of `ray up` that has grown to its most, where this is its head; else none."""
    if not path.exists():
        return []
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    types = {name: kind for name, kind in config.get("available_node_types", {}).items()}
    types.pop(config.get("head_node_type"), None)
    nodes = [_resources(kind["resources"]) for kind in types.values() for _ in range(kind.get("max_workers", 0))]
    return sorted(nodes, key=lambda node: node.cpus + node.gpus, reverse=True)[: config.get("max_workers", 0)]
