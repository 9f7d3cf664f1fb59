"""What all commands share: exit codes, options, one-line errors, signals."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

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
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
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


@dataclass(frozen=True)
class RunOptions:
    """What a command line says beside the configuration."""

    stem: str
    """Name of the configuration's file, of which a run's name is made."""
    name: str | None = None
    storage: str | None = None
    tracking_uri: str | None = None
    address: str | None = None
    data: str | None = None
    resume: bool = False
    verbose: bool = False
    console: Console = field(default_factory=Console)

    @classmethod
    def of(cls, given: argparse.Namespace, file: str) -> "RunOptions":
        """The options that `parser` has parsed, for a configuration file."""
        names = ("name", "storage", "tracking_uri", "address", "data", "resume", "verbose")
        return cls(stem=Path(file).stem, **{name: getattr(given, name) for name in names})


def workers_flag(workers: int | None) -> list[tuple[str, str, Any]]:
    """`--workers` as a placed assignment."""
    return [] if workers is None else [(f"--workers {workers}", "parallel.workers", workers)]


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End cleanly; a second signal ends at once."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, _end_now)
    print("ending, once more ends at once", file=sys.stderr)
    raise KeyboardInterrupt


def _end_now(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
