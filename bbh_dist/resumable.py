"""Work that is done once, however often it is started: its result is kept, its tracking run ends true."""

from collections.abc import Callable
from typing import Any

from bbh_dist.command_line import RunOptions
from bbh_dist.config import ConfigError, Mistake
from bbh_dist.masking import masked
from bbh_dist.storage import RunFolder, open_folder
from bbh_dist.tracking import Tracker, tracking_uri


def stored_tracking_uri(folder: RunFolder, given: str | None) -> str:
    """The tracking store that a run began with.

    Raises:
        ConfigError: another one is given.
    """
    stored: str = folder.record()["tracking_uri"]
    if given is not None and tracking_uri(given) != stored:
        rule = f"must be the store that the run began with, {masked(stored)}"
        raise ConfigError(Mistake("--tracking-uri", rule, got=masked(given)))
    return stored


def open_parent(
    options: RunOptions, *, config: str, check: Callable[[RunFolder], None], start: Callable[[Tracker, str], str]
) -> tuple[RunFolder, Tracker, str]:
    """The folder of work with many runs, its tracking store, and the id of its parent run there.

    A new one gets a folder, an experiment of its name, and what `start` (store, name) opens as its parent run, all or
    nothing; one that is resumed has these and must pass `check`.

    Raises:
        ConfigError: as `open_folder` and `Tracker`, or as `check`.
    """
    folder, resumed = open_folder(options.storage, options.name, options.stem, options.resume)
    if resumed:
        check(folder)
        tracker = Tracker(stored_tracking_uri(folder, options.tracking_uri), folder.name)
        return folder, tracker, folder.record()["parent_run_id"]
    with folder.making():
        uri = tracking_uri(options.tracking_uri)
        tracker = Tracker(uri, folder.name)
        parent = start(tracker, folder.name)
        folder.create(config, {"parent_run_id": parent, "tracking_uri": uri})
    return folder, tracker, parent


def run_once(
    folder: RunFolder,
    tracker: Tracker,
    run_id: str,
    work: Callable[[], dict[str, Any]],
    *,
    config: str,
    keep: Callable[[dict[str, Any]], bool] = lambda result: True,
) -> dict[str, Any]:
    """The result of the work: the stored one where it was done for this configuration, else what it returns now.

    The tracking run is RUNNING meanwhile and then FINISHED; KILLED after an interrupt, FAILED with the tag `reason`
    after an error. A result that `keep` refuses is returned and not stored: a later start tries again.

    Raises:
        ConfigError: another process is at it; nothing has been touched then.
    """
    with folder.lock():
        record = folder.record()
        if folder.config() != config:
            record.pop("result", None)
            folder.update(config, record)
        if "result" in record:
            tracker.close_run(run_id)
            stored: dict[str, Any] = record["result"]
            return stored
        tracker.reopen_run(run_id)
        try:
            result = work()
        except KeyboardInterrupt:
            tracker.end_run(run_id, "KILLED")
            raise
        except BaseException as error:
            tracker.tag(run_id, "reason", " ".join(str(error).split()))
            tracker.end_run(run_id, "FAILED")
            raise
        tracker.flush()
        if keep(result):
            folder.write_record({**folder.record(), "result": result})
        tracker.end_run(run_id, "FINISHED")
        return result
