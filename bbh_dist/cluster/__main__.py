"""See that a cluster can start, that one that stands is whole, and stop it: `python -m bbh_dist.cluster`."""

import argparse
from collections.abc import Sequence

from bbh_dist.command_line import Parser, run
from bbh_dist.config import ConfigError
from bbh_dist.store_uri import check_uri

_EXAMPLE = """python -m bbh_dist.cluster check cluster.yaml
  python -m bbh_dist.cluster check --address auto --nodes 3 --storage /shared/runs --tracking-uri http://10.0.0.5:5000"""


def main(arguments: Sequence[str]) -> None:
    """Parse, and check what was given: a file before `ray up`, a cluster after it."""
    parser = Parser("python -m bbh_dist.cluster", "Check and stop clusters of Ray.", _EXAMPLE)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check",
        description="Before ray up: the rules of FILE, and ssh to its hosts. After it, with --address, on the head: "
        "that all nodes are there, are alike, share the storage and reach the tracking server.",
        example=_EXAMPLE,
    )
    add = check.add_argument
    add("file", nargs="?", metavar="FILE", help="the cluster's file; with --address it tells the hosts' names")
    add("--offline", action="store_true", help="only the file: no ssh to its hosts")
    add("--address", metavar="auto|HOST:PORT", help="a Ray cluster that stands, from one of its nodes")
    add("--nodes", type=int, metavar="N", help="nodes that must be there, the head too (default: as the file says)")
    add("--storage", metavar="DIR", help="must be one folder on all nodes, and writable")
    add("--tracking-uri", metavar="URI", help="must answer from all nodes")
    add("--timeout", type=float, default=300.0, metavar="SECONDS", help="for nodes to come (default: 300)")
    stop = commands.add_parser(
        "stop",
        description="After ray down of one's own machines: stop Ray on the workers too, where it would stay.",
        example="ray down jobs/cluster_local.yaml; python -m bbh_dist.cluster stop jobs/cluster_local.yaml",
    )
    stop.add_argument("file", metavar="FILE", help="the cluster's file")
    given = parser.parse_args(arguments)
    if given.command == "stop":
        stop_all(given.file)
        return
    check_given(check, given)
    if given.address is None:
        check_before(given.file, given.offline)
    else:
        check_after(given)


def check_given(parser: Parser, given: argparse.Namespace) -> None:
    """See that the options go together, and that the tracking store can be one."""
    if given.file is None and given.address is None:
        parser.error("a FILE or --address is needed")
    if given.address is None and (given.storage or given.tracking_uri or given.nodes):
        parser.error("--nodes, --storage and --tracking-uri need --address")
    if given.nodes is not None and given.nodes < 1:
        parser.error("--nodes must be at least 1")
    if given.tracking_uri is not None:
        check_uri(given.tracking_uri, "--tracking-uri")


def stop_all(path: str) -> None:
    """Stop Ray on every host of a file.

    Raises:
        ConfigError: the file has mistakes, or a host does not answer.
    """
    from bbh_dist.cluster.files import check_file
    from bbh_dist.cluster.hosts import stop_hosts

    file = check_file(path)
    if not file.hosts:
        raise ConfigError(file.mistake(("provider", "type"), "must be local: ray down ends the machines of a cloud"))
    stop_hosts(file)
    print(f"Ray is stopped on {', '.join(file.hosts)}")


def check_before(path: str, offline: bool) -> None:
    """Check a file and what `ray up` needs for it.

    Raises:
        ConfigError: every mistake, with its line.
    """
    from bbh_dist.cluster.files import check_file
    from bbh_dist.cluster.hosts import check_hosts, still_to_do

    file = check_file(path)
    print(f"{path}: no mistake found")
    if offline:
        return
    if file.hosts:
        check_hosts(file)
        print(f"{len(file.hosts)} hosts answer over ssh: {', '.join(file.hosts)}")
    for line in still_to_do(file):
        print(f"before ray up: {line}")


def check_after(given: argparse.Namespace) -> None:
    """Check a cluster that stands.

    Raises:
        ConfigError: no cluster answers, or the file has mistakes.
        RunFailed: a node is missing or differs, or does not see the storage or the tracking server.
    """
    from bbh_dist.cluster.nodes import check_cluster

    for line in check_cluster(
        given.address,
        file=given.file,
        nodes=given.nodes,
        storage=given.storage,
        tracking_uri=given.tracking_uri,
        timeout=given.timeout,
    ):
        print(line, flush=True)


if __name__ == "__main__":
    run(main)
