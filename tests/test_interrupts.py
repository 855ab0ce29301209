"""An interrupt comes once, after what must be done first, and isn't lost in the interpreter."""

import subprocess
import sys
import threading

import pytest

from nearfield.interrupts import finished_first

PROGRAM = """
import signal, time
from nearfield.interrupts import Interrupted, raise_on_signals
raise_on_signals()
class Swallows:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
try:
    thing = Swallows()
    del thing
    time.sleep(10)  # ends at once by the signal that was swallowed, sent again
    print("lost")
except Interrupted:
    print("caught")
"""


def test_an_interrupt_in_a_destructor_comes_right_after_it():
    assert said(PROGRAM) == ("caught\n", "")


ONCE = """
import signal
from nearfield.interrupts import Interrupted, raise_on_signals
raise_on_signals(signal.SIGHUP)
try:
    signal.raise_signal(signal.{first})
except Interrupted:
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.raise_signal(again)
    print("cleaned up")
"""


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_signals_after_the_first_break_no_cleaning_up(first):
    assert said(ONCE.format(first=first)) == ("cleaned up\n", "")


FIRST = """
import signal
from nearfield.interrupts import Interrupted, finished_first, raise_on_signals
raise_on_signals()
try:
    with finished_first("sweeping"):
        signal.raise_signal(signal.SIGTERM)
        print("swept")
    print("went on")
except Interrupted:
    print("stopped")
"""


def test_what_must_be_done_is_done_before_the_interrupt():
    assert said(FIRST) == ("swept\nstopped\n", "asked to stop: sweeping first\n")


def test_another_thread_just_does_it():
    done = []

    def sweep():
        with finished_first("sweeping"):
            done.append("swept")

    thread = threading.Thread(target=sweep)
    thread.start()
    thread.join()
    assert done == ["swept"]


def said(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout, done.stderr
