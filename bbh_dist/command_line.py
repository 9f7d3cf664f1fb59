"""What all commands share: exit codes, options, one-line errors, signals."""

import argparse
import atexit
import gc
import os
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from bbh_dist.config import ConfigError, DataError, Mistake
from bbh_dist.config.errors import shown
from bbh_dist.config.paths import path_rule
from bbh_dist.floors import check_floors
from bbh_dist.masking import masked
from bbh_dist.storage import plain_name
from bbh_dist.store_uri import check_tracking_uri

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
_LONGEST_RULE = 300
_MOST_SEEDS = 1000


class RunFailed(Exception):
    """A run that ended without its result; the message is for people."""


class Parser(argparse.ArgumentParser):
    """A parser with an example in its help, whose mistakes are one line."""

    def __init__(self, prog: str, description: str, example: str | None = None, **settings: Any) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=None if example is None else f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **settings,
        )

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line.

        Raises:
            ConfigError: always.
        """
        where, rule = "command line", message
        if message.startswith("argument "):
            where, _, rule = message.removeprefix("argument ").partition(": ")
        raise ConfigError(Mistake(where, f"{rule[:_LONGEST_RULE]}; see {self.prog} --help"))


def path(text: str) -> str:
    """A path of the command line, as the type of an option."""
    rule = path_rule(text)
    if rule is not None:
        raise argparse.ArgumentTypeError(f"{rule}, got {shown(text)}")
    return text


def parser(command: str, description: str, example: str) -> Parser:
    """A parser with the options that every command that trains has."""
    result = Parser(f"python -m bbh_dist.{command}", description, example)
    add = result.add_argument
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments", help="set a key of the file")
    add("--workers", type=int, metavar="N", help="data-parallel workers per training run (parallel.workers)")
    add("--name", help="name of the run (default: the file's, numbered where taken)")
    add("--storage", type=path, metavar="DIR", help="where runs keep their folders (default: runs)")
    add("--resume", action="store_true", help="go on with a run that was cut off")
    add(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store (default: MLFLOW_TRACKING_URI, or mlflow.db here); "
        "one with a password belongs in that variable, as others see command lines",
    )
    add("--data", type=path, metavar="DIR", help="where data sets lie (default: BBH_DATA, or data)")
    add("--address", metavar="auto|HOST:PORT", help="Ray cluster to use (default: one is started on this machine)")
    add("--json", type=path, metavar="FILE", help="also write the results to FILE")
    add("--verbose", action="store_true", help="show the log lines of workers")
    return result


def run(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit: 0 done, 1 failed, 2 bad input (one line per mistake), 130 interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    os.umask(os.umask(0) | stat.S_IWOTH)  # whatever is written, others cannot change it
    _search_less_for_garbage()
    try:
        check_floors()
        main(sys.argv[1:] if arguments is None else arguments)
        code = DONE
    except (ConfigError, DataError) as error:
        print(masked(str(error)), file=sys.stderr)
        code = BAD_INPUT
    except RunFailed as error:
        print(f"failed: {masked(str(error))}", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        print("interrupted: --resume goes on from here", file=sys.stderr)
        code = INTERRUPTED
    except Exception as error:
        text = traceback.format_exc()
        if _is_out_of_memory(error):
            text = f"failed: not enough memory: {' '.join(str(error).split())[:_LONGEST_RULE]}\n"
        print(masked(text), file=sys.stderr, end="")
        code = FAILED
    sys.stdout.flush()
    sys.exit(code)


def _search_less_for_garbage() -> None:
    """Have Python's collector seldom walk through all that the libraries make when they are imported, and not at the
    end, when the system takes it all: a third of the time of a short command. Young objects are searched as ever; old
    ones that refer to each other in a ring wait longer until they are freed.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1000)
    atexit.register(gc.freeze)


def _is_out_of_memory(error: Exception) -> bool:
    """Of Python's, NumPy's and torch's allocations, on CPU or GPU."""
    words = str(error)
    return isinstance(error, MemoryError) or "allocate memory" in words or "CUDA out of memory" in words


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
        """The options that `parser` has parsed, for a configuration file.

        Raises:
            ConfigError: the tracking store, of the command line or of the environment, cannot be one. What is resumed
                has its own: the environment's is not looked at.
        """
        if given.tracking_uri is not None or not given.resume:
            check_tracking_uri(given.tracking_uri)
        names = ("name", "storage", "tracking_uri", "address", "data", "resume", "verbose")
        return cls(stem=plain_name(Path(file).stem), **{name: getattr(given, name) for name in names})


def workers_flag(workers: int | None) -> list[tuple[str, str, Any]]:
    """`--workers` as a placed assignment."""
    return [] if workers is None else [(f"--workers {workers}", "parallel.workers", workers)]


def seeds_flag(seeds: int | None, key: str) -> list[tuple[str, str, Any]]:
    """`--seeds` as a placed assignment of 0, 1, ... to a key.

    Raises:
        ConfigError: more than anybody runs.
    """
    if seeds is None:
        return []
    if seeds > _MOST_SEEDS:
        raise ConfigError(Mistake("--seeds", f"must be at most {_MOST_SEEDS}", got=str(seeds)))
    return [(f"--seeds {seeds}", key, list(range(seeds)))]


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End cleanly; a second signal ends at once."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, _end_now)
    print("ending, once more ends at once", file=sys.stderr)
    raise KeyboardInterrupt


def _end_now(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
