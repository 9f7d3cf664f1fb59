"""Deliver what the tracking store has not been told: `python -m bbh_dist.tracking sync FOLDER`."""

from collections.abc import Sequence
from pathlib import Path

from bbh_dist.command_line import Parser, RunFailed, path, run
from bbh_dist.resumable import stored_tracker
from bbh_dist.storage import RunFolder


def main(arguments: Sequence[str]) -> None:
    """Parse, and deliver one folder after the other."""
    parser = Parser(
        "python -m bbh_dist.tracking",
        "Tell the tracking store what it was not told of runs while it was away.",
        "python -m bbh_dist.tracking sync runs/bbh runs/digits5",
    )
    add = parser.add_argument
    add("action", choices=["sync"], help="what to do")
    add("folders", type=path, nargs="+", metavar="FOLDER", help="folder of a run, study or suite that has ended")
    folders = [RunFolder(Path(name).resolve()) for name in parser.parse_args(arguments).folders]
    left = [str(folder.path) for folder in folders if not sync(folder)]
    if left:
        raise RunFailed(f"not everything could be delivered of {', '.join(left)}")


def sync(folder: RunFolder) -> bool:
    """Deliver what is left of a folder, runs that a killed process left open as KILLED; whether it has all arrived.

    Raises:
        ConfigError: it is no run's folder, a driver works on it now, or the store does not answer.
    """
    tracker = stored_tracker(folder)
    with folder.lock("sync"), tracker.delivering():
        tracker.kill_all()
        print(f"{folder.name}: {tracker.left} entries to deliver")
    done = not (tracker.left or tracker.refused)
    if done:
        print(f"{folder.name}: the tracking store has everything")
    return done


if __name__ == "__main__":
    run(main)
