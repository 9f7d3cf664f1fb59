"""What the terminal shows while a measurement runs: one line that changes, or a line now and then."""

import time
from types import TracebackType

from rich.console import Console

_SECONDS_BETWEEN_LINES = 20


class Progress:
    """Says what runs; a context manager. Calling it with a text replaces the one before."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._status = self._console.status("starting")
        self._printed = 0.0

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def __call__(self, text: str) -> None:
        """Show what runs now."""
        if self._console.is_terminal:
            # Drawn by a thread of its own, ten times a second: too little to be seen in the times.
            self._status.update(text)
        elif time.monotonic() - self._printed > _SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            self._console.print(text, soft_wrap=True)
