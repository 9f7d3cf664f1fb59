"""Work that is done once, however often it is started: its result is kept, its tracking run ends true."""

from collections.abc import Callable
from typing import Any

from bbh_dist.storage import RunFolder
from bbh_dist.tracking import Tracker


def run_once(folder: RunFolder, tracker: Tracker, run_id: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of the work: the stored one where it was done before, else what it returns now, stored.

    The tracking run is RUNNING meanwhile and then FINISHED; KILLED after an interrupt, FAILED with the tag `reason`
    after an error. One process at a time.

    Raises:
        ConfigError: another process is at it.
    """
    with folder.lock():
        done: dict[str, Any] | None = folder.record().get("result")
        if done is not None:
            tracker.close_run(run_id)
            return done
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
        folder.write_record({**folder.record(), "result": result})
        tracker.end_run(run_id, "FINISHED")
        return result
