"""A module of ours run as a child process, which a crash of a library ends alone.

Owns the child's start, its death with its parent, and how its failure is told. Refuses to know
what it does.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from typing import Any

from nearfield.errors import ShardFailed

PR_SET_PDEATHSIG = 1
"""From Linux' prctl.h."""


def run_child(module: str, what: str, arguments: dict[str, Any]) -> None:
    """Run `python -P -m module JSON`; raises `ShardFailed` naming `what` if it ends with an error.

    The folder that the command runs in is no place to import from.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, json.dumps(arguments | {"parent": os.getpid()})],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        cause = done.stderr.strip().splitlines()[-1:] or ["no message"]
        if done.returncode < 0:
            cause = [f"killed by {signal.Signals(-done.returncode).name}"]
        raise ShardFailed(f"{what}: {cause[0]}")


def child_arguments() -> dict[str, Any]:
    """In the child: what `run_child` was given. From here on it ends when its parent does."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    parent = arguments.pop("parent")
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker has ended")
    return arguments
