"""Ctrl-C and SIGTERM as an exception of our own, so that no library in between swallows it."""

import signal
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)
SWALLOWING = frozenset(("_gc_callback", "__del__"))
"""Functions that the interpreter calls by itself: an exception in one is printed and forgotten."""
AGAIN_S = 0.02


class Interrupted(BaseException):
    """The user or the system asked the program to stop."""


def raise_on_signals() -> None:
    """From now on SIGINT and SIGTERM raise `Interrupted` in the main thread, once."""
    for name in (*STOPS, signal.SIGALRM):
        signal.signal(name, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    # a second Ctrl-C must not break the cleaning-up after the first
    for name in STOPS:
        signal.signal(name, signal.SIG_IGN)
    if _would_be_swallowed(frame):
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        return
    raise Interrupted


def _would_be_swallowed(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in SWALLOWING:
            return True
        frame = frame.f_back
    return False
