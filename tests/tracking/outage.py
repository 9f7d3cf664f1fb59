"""What a step costs while the tracking server is stopped: `python tests/tracking/outage.py --seconds 60`.

Trains with a real server, ends the server for a while in the middle, starts it again and ends the run. Prints the
median step time of the epochs before, during and after, and how many metrics are missing or there twice. Epochs next
to the borders are left out, and the time in which the server starts. Needs a machine that does nothing else.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mlflow import MlflowClient
from servers import Server, wait_for

JOB = "{task: digits5, network: 'mlp:64-64', epochs: 100000, method: {name: bbb}, checkpoint_every_epochs: 100}\n"


def metrics(spool: Path) -> list[dict]:
    """What the run has logged, epoch by epoch."""
    lines = spool.read_text().splitlines(keepends=True) if spool.exists() else []
    operations = [json.loads(line) for line in lines if line.endswith("\n")]
    return [operation for operation in operations if operation["kind"] == "metrics"]


def run(folder: Path, seconds: float) -> None:
    server = Server(folder)
    (folder / "job.yaml").write_text(JOB)
    command = ["bbh_dist.train", "--job", "job.yaml", "--name", "run", "--tracking-uri", server.uri]
    command += ["--set", "parallel.cpus_per_worker=1"]
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=folder, stdout=subprocess.DEVNULL)
    spool = folder / "runs" / "run" / "tracking" / "operations.jsonl"
    borders = []
    try:
        wait_for(lambda: len(metrics(spool)) > 5, "the first epochs")
        for change in (server.stop, server.start, None):
            time.sleep(seconds)
            borders += [time.time()]
            if change is not None:
                change()
                borders += [time.time()]
        process.send_signal(signal.SIGINT)
        process.wait(timeout=300)
        report(metrics(spool), borders, MlflowClient(tracking_uri=server.uri))
    finally:
        process.kill()
        server.stop()


def report(epochs: list[dict], borders: list[float], client: MlflowClient) -> None:
    stopping, stopped, starting, started, end = borders
    spans = {"before": (0.0, stopping), "while away": (stopped, starting), "after": (started, end)}
    for name, (first, last) in spans.items():
        steps = [each["values"]["time/step_ms"] for each in epochs if first < each["time"] / 1000 < last]
        middle = steps[3:-3]
        quartiles = ", ".join(f"{value:.4f}" for value in statistics.quantiles(middle, n=4))
        print(f"{name:<10}  {statistics.median(middle):.4f} ms a step (quartiles {quartiles}; {len(middle)} epochs)")
    (found,) = client.search_runs([client.get_experiment_by_name("job").experiment_id])
    logged = Counter((name, each["step"]) for each in epochs for name in each["values"])
    stored = Counter(
        (name, point.step)
        for name in found.data.metrics
        for point in client.get_metric_history(found.info.run_id, name)
    )
    twice = sum(count - 1 for count in stored.values())
    print(f"{len(logged)} metrics, {len(logged - stored)} missing, {twice} twice, run {found.info.status}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="with the server, without it, and with it again")
    with tempfile.TemporaryDirectory(prefix="bbh-outage-") as name:
        run(Path(name), parser.parse_args().seconds)
