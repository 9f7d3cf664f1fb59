"""A group of workers on a cluster that has no node for them and can have three; to be run in namespaces of its own.

Usage: growing_cluster.py FOLDER WORKERS (JSON). The nodes are those of Ray's fake provider, with a core each. Each
worker leaves a file in FOLDER, named by its rank, with the number of workers; prints the number of nodes.
"""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PORT = 6379
STORE_BYTES = 150 * 1024 * 1024
HEAD_ID = "f" * 51 + "00000"
HEAD, NODE = "ray.head.default", "one core"
"""Id and type of the head are those that the fake provider knows."""
PROVIDER = {
    # By its class: what Ray's name for it, fake_multinode, needs besides is not in the wheel.
    "type": "external",
    "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
    "gcs_address": f"127.0.0.1:{PORT}",
    "head_node_id": HEAD_ID,
    "launch_multiple": True,
    "use_node_id_as_ip": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
}
LISTS = [f"{when}_commands" for when in ("initialization", "setup", "head_setup", "worker_setup")]
LISTS += ["head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"]
CLUSTER = {
    "cluster_name": "growing",
    "max_workers": 3,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 1.0,
    "provider": PROVIDER,
    "head_node_type": HEAD,
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        NODE: {
            "resources": {"CPU": 1, "object_store_memory": STORE_BYTES},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 3,
        },
    },
    "auth": {},
    "docker": {},
    "file_mounts": {},
    **{key: [] for key in LISTS},
}


def start(folder: Path) -> str:
    """Start a head without cores and its autoscaler; the address."""
    config = folder / "cluster.json"
    config.write_text(json.dumps(CLUSTER))
    os.environ |= {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_NODE_TYPE_NAME": HEAD,
    }
    line = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={PORT}", "--num-cpus=0"]
    line += [
        "--include-dashboard=false",
        f"--autoscaling-config={config}",
        f"--object-store-memory={150 * 1024 * 1024}",
    ]
    subprocess.run(line, check=True, stdout=sys.stderr)
    for name in ("RAY_CLOUD_INSTANCE_ID", "RAY_OVERRIDE_NODE_ID_FOR_TESTING", "RAY_NODE_TYPE_NAME"):
        del os.environ[name]
    return f"127.0.0.1:{PORT}"


def loop(config: dict[str, Any]) -> None:
    """What each worker does."""
    import ray.train

    context = ray.train.get_context()
    (Path(config["folder"]) / str(context.get_world_rank())).write_text(str(context.get_world_size()))


def main(folder: Path, workers: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="node-") as temporary:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": temporary}
        address = start(folder)
        from bbh_dist.cluster.group import fit_group
        from bbh_dist.cluster.session import cluster
        from bbh_dist.config import Parallel

        with cluster(address, verbose=True) as before:
            import ray

            assert before.cpus == 0
            parallel = Parallel.model_validate({"workers": workers})
            fit_group(loop, {"folder": str(folder)}, parallel, folder / "ray", restarts=0)
            groups = ray.util.placement_group_table().values()
            assert {group["state"] for group in groups} <= {"REMOVED"}, groups
            print(sum(node["Alive"] and node["Resources"].get("CPU", 0) for node in ray.nodes()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # what is left of the cluster ends with the namespace
