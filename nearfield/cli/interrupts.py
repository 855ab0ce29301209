"""Ctrl-C and SIGTERM as an exception of our own, so that no library in between swallows it."""

import signal
from types import FrameType


class Interrupted(BaseException):
    """The user or the system asked the program to stop."""


def raise_on_signals() -> None:
    """From now on SIGINT and SIGTERM raise `Interrupted` in the main thread."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    # a second Ctrl-C must not break the cleaning-up after the first
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)
