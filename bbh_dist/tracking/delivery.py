"""Brings a spool to the store from a thread of its own, as fast as the store takes it and however often it is away."""

import random
import sys
import threading
import time

from bbh_dist.tracking.sender import Sender
from bbh_dist.tracking.spool import Operation, Spool
from bbh_dist.tracking.store import reason

_SECONDS_BETWEEN = 2.0
_OPERATIONS = 200
"""That are in memory at a time."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_PATIENT_TRIES = 4
_SECONDS_TO_WAIT = 10.0


class Delivery:
    """Delivers a spool in order, until it is closed and nothing is left or the store is away.

    After an error it waits for 1, 2, 4, ... up to 30 seconds, each times a random factor from 0.5 to 1.5, and repeats.
    """

    def __init__(self, spool: Spool, sender: Sender) -> None:
        self.spool, self.sender, self.told = spool, sender, sender.told
        # What a process that died had sent is not known, only what it had stored as delivered.
        self._doubtful_until = spool.size
        self._failures, self._reason, self._closing, self._given_up = 0, "", False, False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Deliver the rest, until the store has answered nothing for 10 seconds."""
        self._closing = True
        self._wake.set()
        calls, since = self.sender.calls, time.monotonic()
        while self._thread.is_alive() and time.monotonic() - since < _SECONDS_TO_WAIT:
            self._thread.join(0.1)
            if calls != self.sender.calls:
                calls, since = self.sender.calls, time.monotonic()
        self._given_up = True

    @property
    def last_error(self) -> str:
        """Why the store took nothing when it was last tried."""
        return self._reason or "it does not answer"

    def _work(self) -> None:
        while not self._given_up and not (self._closing and self.told.offset >= self.spool.size):
            self._wake.wait(self._pause())
            self._wake.clear()
            self._deliver()

    def _pause(self) -> float:
        if self._failures == 0:
            return 0.0 if self._closing else _SECONDS_BETWEEN
        pause = min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE) * random.uniform(0.5, 1.5)
        return min(pause, 0.5) if self._closing else pause

    def _deliver(self) -> None:
        """Deliver what is there now, up to the first error."""
        count = _OPERATIONS
        while count == _OPERATIONS and not self._given_up:  # fewer wait for others, and travel with them
            operations, end = self.spool.read(self.told.offset, _OPERATIONS)
            count = len(operations)
            try:
                self._send(operations, end)
            except Exception as error:  # whatever it is, the run goes on and the spool keeps what is left
                self._doubtful_until = max(self._doubtful_until, end)
                self._failed(reason(error, self.sender.uri))
                return

    def _send(self, operations: list[Operation], end: int) -> None:
        if end == self.told.offset:
            return
        self.spool.flush()
        doubtful = self.told.offset < self._doubtful_until
        self.sender.send(operations, doubtful=doubtful, patient=self._failures < _PATIENT_TRIES)
        if not self._given_up:
            self.told.offset = end
            self.spool.store(self.told)
            self._succeeded()

    def _failed(self, reason: str) -> None:
        self._failures, self._reason = self._failures + 1, reason
        if self._failures == 2:
            place = self.spool.path
            print(f"the tracking store is away ({reason}), what is logged waits in {place}", file=sys.stderr)

    def _succeeded(self) -> None:
        if self._failures >= 2:
            print("the tracking store is back", file=sys.stderr)
        self._failures, self._reason = 0, ""
