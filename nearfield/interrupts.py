"""Ctrl-C and SIGTERM as an exception of our own, so that no library in between swallows it.

Owns that it comes once, and that what mustn't be left half done is done first.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM)
SWALLOWING = frozenset(("_gc_callback", "__del__"))
"""Functions that the interpreter calls by itself: an exception in one is printed and forgotten."""
AGAIN_S = 0.02
STDERR = 2


class Interrupted(BaseException):
    """The user or the system asked the program to stop."""


def raise_on_signals(*others: signal.Signals) -> None:
    """From now on SIGINT, SIGTERM and `others` raise `Interrupted` in the main thread, once."""
    stops = (*STOPS, *others)

    def interrupt(_number: int, frame: FrameType | None) -> None:
        # a second Ctrl-C must not break the cleaning-up after the first
        for name in stops:
            signal.signal(name, signal.SIG_IGN)
        if _would_be_swallowed(frame):
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
            return
        raise Interrupted

    for name in (*stops, signal.SIGALRM):
        signal.signal(name, interrupt)


@contextmanager
def finished_first(what: str) -> Iterator[None]:
    """A signal that would stop the program in the block does so after it; users are told `what`.

    An error of the block comes instead. Signals stop the main thread alone, so others just go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        # not `print`, which may be what the signal came into
        os.write(STDERR, f"asked to stop: {what} first\n".encode())

    before = {
        name: handler
        for name in (*STOPS, signal.SIGHUP, signal.SIGALRM)
        # what is ignored must stay so in programs that the block starts
        if (handler := signal.getsignal(name)) not in (signal.SIG_IGN, None)
    }
    for name in before:
        signal.signal(name, note)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    for number in came[:1]:
        signal.raise_signal(number)


def _would_be_swallowed(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in SWALLOWING:
            return True
        frame = frame.f_back
    return False
