"""SIGINT and SIGTERM become a request to stop after the current batch."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from uncollapse.errors import UncollapseError

STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(UncollapseError):  # noqa: N818 (not a fault)
    """Training stopped on a signal, after its checkpoint was written.

    ``exit_code`` follows the shells: 128 + number of the signal (130 for SIGINT, 143 for SIGTERM).
    """

    def __init__(self, number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} with a whole checkpoint; "
            "resume to go on from this batch"
        )
        self.exit_code = 128 + number


class SignalWatch:
    """Remembers the first stopping signal instead of dying of it.

    A second signal gets the handlers that were there before, so an impatient Ctrl-C still works.
    Signals belong to the main thread; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        """Take over the stopping signals."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in STOPPING}
            for number in STOPPING:
                signal.signal(number, self._remember)

    def restore(self) -> None:
        """Give the signals back; safe to call twice."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        self.restore()
