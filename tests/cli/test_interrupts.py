"""An interrupt isn't lost where the interpreter swallows exceptions."""

import subprocess
import sys

PROGRAM = """
import signal, time
from nearfield.cli.interrupts import Interrupted, raise_on_signals
raise_on_signals()
class Swallows:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
try:
    thing = Swallows()
    del thing
    time.sleep(10)
    print("lost")
except Interrupted:
    print("caught")
"""


def test_an_interrupt_in_a_destructor_comes_right_after_it():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True
    )
    assert (done.stdout, done.stderr) == ("caught\n", "")
