"""What all commands share: exit codes, options, one-line errors, signals."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from bbh_dist.config import ConfigError, DataError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class RunFailed(Exception):
    """A run that ended without its result; the message is for people."""


def parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser with the options that every command that trains has."""
    result = argparse.ArgumentParser(
        prog=f"python -m bbh_dist.{command}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments", help="set a key of the file")
    add("--workers", type=int, metavar="N", help="data-parallel workers per training run (parallel.workers)")
    add("--name", help="name of the run (default: the file's, numbered where taken)")
    add("--storage", metavar="DIR", help="where runs keep their folders (default: runs)")
    add("--resume", action="store_true", help="go on with a run that was cut off")
    add("--tracking-uri", metavar="URI", help="MLflow store (default: MLFLOW_TRACKING_URI, or mlflow.db here)")
    add("--data", metavar="DIR", help="where data sets lie (default: BBH_DATA, or data)")
    add("--address", metavar="auto|URL", help="Ray cluster to use (default: one is started on this machine)")
    add("--json", metavar="FILE", help="also write the results to FILE")
    add("--verbose", action="store_true", help="show the log lines of workers")
    return result


def run(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 failed, 2 bad input (one line per mistake), 130 interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        main(sys.argv[1:] if arguments is None else arguments)
        code = DONE
    except (ConfigError, DataError) as error:
        print(error, file=sys.stderr)
        code = BAD_INPUT
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        print("interrupted: --resume goes on from here", file=sys.stderr)
        code = INTERRUPTED
    except Exception:
        traceback.print_exc()
        code = FAILED
    sys.stdout.flush()
    sys.exit(code)


def keep_to(storage: str | None) -> None:
    """Have libraries put their caches under the storage folder; to be called before they are imported."""
    os.environ.setdefault("MPLCONFIGDIR", str(Path(storage or "runs").resolve() / ".matplotlib"))


def workers_flag(workers: int | None) -> list[tuple[str, str, Any]]:
    """`--workers` as a placed assignment."""
    return [] if workers is None else [(f"--workers {workers}", "parallel.workers", workers)]


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
