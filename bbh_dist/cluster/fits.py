"""What must hold of a cluster before the first run of a study or a suite: every kind of run fits, nothing is lost."""

from collections.abc import Iterable
from pathlib import Path

from bbh_dist.cluster.session import check_address, cluster, concurrency, local_resources
from bbh_dist.cluster.temporary import check_temporary
from bbh_dist.command_line import RunOptions
from bbh_dist.config import ConfigError, Mistake, Parallel
from bbh_dist.masking import masked
from bbh_dist.tracking import tracking_uri

_SECONDS_TO_LOAD = 600.0
"""All data, from a slow disk or the internet."""


def check_fits(parallels: Iterable[Parallel], options: RunOptions, tasks: Iterable[str], data: str) -> None:
    """See that runs of every kind fit, and that all nodes of a cluster have the data and keep what is written.

    Raises:
        ConfigError: one does not fit, no cluster answers, others can write to this machine's temporary files, or on
            several nodes the tracking store is a file, the storage is not one folder, or the data are not there.
    """
    if options.address is None:
        check_temporary()
        for parallel in parallels:
            concurrency(parallel, local_resources())
        return
    check_address(options.address)
    with cluster(options.address, options.verbose) as available:
        for parallel in parallels:
            concurrency(parallel, available)
        if len(available.nodes) > 1:
            if not options.resume:  # it goes on with the store that it began with
                _check_store(tracking_uri(options.tracking_uri))
            _check_storage(options.storage)
            _check_data(list(dict.fromkeys(tasks)), data)


def _check_store(uri: str) -> None:
    if uri.startswith("sqlite:"):
        rule = "must be a server on several nodes, such as http://HEAD:5000 of jobs/cluster_mlflow.sh, no file"
        raise ConfigError(Mistake("--tracking-uri", rule, got=masked(uri)))


def _check_storage(storage: str | None) -> None:
    from bbh_dist.cluster.nodes import alive_nodes, ask_nodes

    path = str(Path(storage or "runs").resolve())
    try:
        answers = ask_nodes(alive_nodes(), path)
    except OSError as error:
        raise ConfigError(Mistake("--storage", f"cannot be written: {error.strerror}", got=path)) from error
    for answer in answers:
        problem = answer.get("error") or answer["storage"]
        if problem:
            raise ConfigError(Mistake("--storage", f"node {answer['node']}: {problem}", got=path))


def _check_data(tasks: list[str], data: str) -> None:
    from bbh_dist.cluster.nodes import alive_nodes, ask_nodes

    for answer in ask_nodes(alive_nodes(), tasks=tasks, data=data, seconds=_SECONDS_TO_LOAD):
        problem = answer.get("error") or answer["data"]
        if problem:
            raise ConfigError(Mistake("--data", f"node {answer['node']}: {problem}", got=data))
