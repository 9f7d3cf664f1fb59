"""A cluster of three nodes with a core each loses one that trains; to be run in namespaces of its own.

Usage: lose_node.py FOLDER WORKERS [--keep]. The run is FOLDER/run; the node goes after the second checkpoint, or with
--keep none does. Prints the number of workers that each node but the head had then.
"""

import os
import secrets
import sys
import tempfile
import time
from pathlib import Path

from training_processes import train, wait_for, workers_of

SETTINGS = ("epochs=4", "batch_size=3", "evaluation={samples: 5, epoch_samples: 3}", "precision=float64")


def main(folder: Path, workers: str, keep: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="node-") as temporary:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": temporary}
        sys.path.append(str(Path(__file__).resolve().parents[1] / "tracking"))
        from ray.cluster_utils import Cluster
        from servers import Server

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        (folder / "server").mkdir()
        store = Server(folder / "server").uri  # a file is refused on several nodes
        settings = (f"parallel.workers={workers}", *SETTINGS)
        process = train(folder, "run", *settings, address=cluster.address, store=store)
        wait_for((folder / "run" / "checkpoints" / "epoch-000002").exists, process, folder / "run.out", 400)
        time.sleep(0.5)
        training = [len(workers_of(node.all_processes["raylet"][0].process.pid)) for node in nodes]
        print(training, flush=True)
        if not keep:
            cluster.remove_node(nodes[training.index(1)], allow_graceful=False)
        return process.wait(400)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), sys.argv[2], keep=sys.argv[3:] == ["--keep"])
    sys.stdout.flush()
    os._exit(code)  # what is left of the cluster ends with the namespace
