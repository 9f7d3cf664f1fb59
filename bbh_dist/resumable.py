"""Work that is done once, however often it is started: its result is kept, its tracking run ends true."""

import contextlib
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from bbh_dist.command_line import RunOptions
from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked
from bbh_dist.storage import RunFolder, open_folder
from bbh_dist.store_uri import check_tracking_uri, check_uri
from bbh_dist.tasks.own_files import OWN_FILES, check_own_files, own_hashes
from bbh_dist.tracking import Tracker, tracking_uri


def open_work(
    options: RunOptions,
    *,
    config: str,
    tasks: Iterable[str],
    check: Callable[[RunFolder], None],
    experiment: str | None = None,
) -> tuple[RunFolder, Tracker]:
    """The folder of work on some tasks and its tracking store.

    A new one gets a folder and an experiment of its name if no other is given, both or none; one that is resumed has
    these, must pass `check`, and its tasks the same data; what a killed process had only begun to make is made now.

    Raises:
        ConfigError: as `open_folder` and `Tracker`, or as `check`.
        DataError: a task's own file was changed since, or cannot be read.
    """
    folder, stands = open_folder(options.storage, options.name, options.stem, options.resume)
    if stands and folder.has_record():
        check(folder)
        check_own_files(tasks, folder.record().get(OWN_FILES, {}))
        return folder, stored_tracker(folder, options.tracking_uri)
    if stands:  # else it was checked with the options
        check_tracking_uri(options.tracking_uri)
    with contextlib.nullcontext() if stands else folder.making(), folder.lock():
        uri, key = tracking_uri(options.tracking_uri), secrets.token_hex(16)
        place = {"tracking_uri": uri, "experiment": experiment or folder.name, "tracking_key": key}
        tracker = Tracker(folder.path, uri, place["experiment"], key)
        folder.create(config, place | {OWN_FILES: own_hashes(tasks)})
    return folder, tracker


def stored_tracker(folder: RunFolder, given_uri: str | None = None) -> Tracker:
    """The tracking store that work began with.

    Raises:
        ConfigError: as `Tracker`; another store is given, its database does not answer, or the folder does not say
            which it was.
    """
    record = folder.record()
    try:
        uri, experiment, key = (record[name] for name in ("tracking_uri", "experiment", "tracking_key"))
    except KeyError as error:
        rule = f"has no {error}: it is no run's folder, or one of an earlier version"
        raise ConfigError(Mistake(str(folder.path / "run.json"), rule)) from error
    if given_uri is not None and tracking_uri(given_uri) != uri:
        rule = f"must be the store that the run began with, {masked(uri)}"
        raise ConfigError(Mistake("--tracking-uri", rule, got=masked(given_uri)))
    if not uri.startswith("sqlite:"):
        check_uri(uri, str(folder.path / "run.json"), "tracking_uri")
    return Tracker(folder.path, uri, experiment, key)


def run_once(
    folder: RunFolder,
    tracker: Tracker,
    run: str,
    work: Callable[[], dict[str, Any]],
    *,
    config: str,
    describe: Callable[[], dict[str, Any]],
    keep: Callable[[dict[str, Any]], bool] = lambda result: True,
) -> dict[str, Any]:
    """The result of the work: the stored one where it was done for this configuration, else what it returns now.

    The tracking run, which begins with the tags and parameters that `describe` gives, is RUNNING meanwhile and then
    FINISHED; KILLED after an interrupt, FAILED with the tag `reason` after an error. A result that `keep` refuses is
    returned and not stored: a later start tries again. Where the result names runs, ids are returned.

    Raises:
        ConfigError: another process is at it, or the tracking run has been deleted; no work has been done then.
    """
    with folder.lock(), tracker.delivering():
        tracker.check_stands(run)
        record = folder.record()
        if folder.config() != config:
            record.pop("result", None)
            folder.update(config, record)
        if "result" in record:
            tracker.end_run(run, "FINISHED")
            result: dict[str, Any] = record["result"]
        else:
            tracker.start_run(run, config=config, **describe())
            result = _worked(tracker, run, work)
            if keep(result):
                folder.write_record({**folder.record(), "result": result})
            tracker.end_run(run, "FINISHED")
    return tracker.with_run_ids(result)


def _worked(tracker: Tracker, run: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work returns; a status that says why where it returns nothing."""
    try:
        return work()
    except KeyboardInterrupt:
        tracker.end_run(run, "KILLED")
        raise
    except BaseException as error:
        tracker.tag(run, "reason", " ".join(str(error).split()))
        tracker.end_run(run, "FAILED")
        raise
