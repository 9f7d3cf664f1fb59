"""What the workers of a run report: lines of JSON in `reports.jsonl` of the run's folder, which all of them see."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPORTS = "reports.jsonl"
FAILURE, FINISHED, DETAILS = "failure", "finished", "details"

Report = dict[str, Any]
"""An epoch's metrics; the last one says that the run is finished, or why it failed."""


class Reports:
    """The reports of a folder. A line that a killed process has torn does not count.

    The first worker writes them; another one only that it failed, which may then stand before the first one's last.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / REPORTS
        self._read, self._epoch = 0, 0

    def append(self, reports: Sequence[Report]) -> None:
        """Add reports at the end."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(report) + "\n" for report in reports))

    def last(self) -> Report:
        """The last one, empty where there is none."""
        lines = self._whole_lines()
        return json.loads(lines[-1]) if lines else {}

    def failure(self) -> str | None:
        """Why the run failed, if it did."""
        return next((report[FAILURE] for report in map(json.loads, self._whole_lines()) if FAILURE in report), None)

    def forget_failures(self) -> None:
        """Take out what is about to be tried again; while nobody writes."""
        self.cut_torn_line()
        lines = self._whole_lines()
        kept = [line for line in lines if FAILURE not in json.loads(line)]
        if len(kept) < len(lines):
            temporary = self.path.with_suffix(".new")
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            os.replace(temporary, self.path)

    def cut_torn_line(self) -> None:
        """Cut off a line that a killed process has not written to its end; the next one would go on in it."""
        if self.path.exists():
            os.truncate(self.path, sum(len(line.encode()) + 1 for line in self._whole_lines()))

    def unread(self) -> Iterator[Report]:
        """What has been appended since the last call, whole, and every epoch once: a restarted group repeats some."""
        if not self.path.exists():
            return
        with open(self.path, encoding="utf-8") as file:
            file.seek(self._read)
            while (line := file.readline()).endswith("\n"):
                self._read, report = file.tell(), json.loads(line)
                if FAILURE in report or FINISHED in report or report["epoch"] > self._epoch:
                    self._epoch = report.get("epoch", self._epoch)
                    yield report

    def _whole_lines(self) -> list[str]:
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()
