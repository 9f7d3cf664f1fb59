"""A Ray cluster of several raylets on this machine, until its input closes: `python standing_cluster.py 1 2` (CPUs).

Prints the address. A CPU count of `2:DIR` starts that node where DIR is another, empty folder.
"""

import subprocess
import sys

from ray.cluster_utils import Cluster


def apart(address: str, cpus: str, folder: str) -> "subprocess.Popen[bytes]":
    """A node with a file system of its own at a folder."""
    start = (
        f'mount -t tmpfs none "$0" && exec {sys.executable} -m ray.scripts.scripts start --block --address={address}'
    )
    command = ["unshare", "--mount", "sh", "-c", f"{start} --num-cpus={cpus}", folder]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    first, *others = sys.argv[1:]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": int(first), "include_dashboard": False})
    started = []
    for other in others:
        cpus, _, folder = other.partition(":")
        if folder:
            started.append(apart(cluster.address, cpus, folder))
        else:
            cluster.add_node(num_cpus=int(cpus))
    print(cluster.address, flush=True)
    sys.stdin.read()
    for process in started:
        process.terminate()
        process.wait()
    cluster.shutdown()


if __name__ == "__main__":
    main()
