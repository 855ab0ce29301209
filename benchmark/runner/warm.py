"""Measured processes that needn't start Python and import a library anew: forks of a warm parent.

    python -m benchmark.runner.warm METHOD PARENT_PID

Owns that parent. It imports the method and its library and forks for each line on stdin:
`["request.json", "log", false]`. It answers `[pid]`, and `[pid, wait status]` once that has ended.
With `true` it does what is asked itself, and answers `[0]`: so a library that compiles itself at
its first use does so once, for all its forks. Nothing else is computed here, and no threads are
started that a fork would lack: OpenMP gets one, numba's layer here (`process.environment`) begins
anew in a fork. So each measurement has a process of its own with nothing in it but
what importing leaves, and its end, however bad, costs no other. Refuses to watch: that is
`benchmark.runner.process`.
"""

import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmark.methods import method_named
from benchmark.runner.child import die_with_parent, main, memory_of
from benchmark.runner.request import UNTOUCHED, note, read_request
from nearfield.errors import NearfieldError


def serve(method: str) -> None:
    """Fork for every line until stdin ends."""
    answers = _own_stdout()
    with suppress(NearfieldError):  # whatever is amiss the measured process meets again, and says
        method_named(method).require()
    for line in sys.stdin:
        request, log, here = json.loads(line)
        if here:
            with threadpool_limits(1, user_api="openmp"):
                main(read_request(Path(request)))
            _say(answers, [0])
            continue
        ours = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _measure(Path(request), Path(log), ours)
        with suppress(PermissionError, ProcessLookupError):  # it did so itself already
            os.setpgid(pid, pid)
        _say(answers, [pid])
        _say(answers, [pid, os.waitpid(pid, 0)[1]])


def _own_stdout() -> int:
    """A descriptor for our answers alone: what libraries print goes where errors go."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _measure(request: Path, log: Path, parent: int) -> None:
    """Become the measured process: own group, own output; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent(parent)
        _redirect(log)
        asked = read_request(request)
        untouched = memory_of(parent, "VmRSS") - memory_of("self", "VmRSS")
        note(Path(asked.out), **{UNTOUCHED: max(0, untouched)})
        main(asked)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(log: Path) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)


def _say(answers: int, words: list[int]) -> None:
    os.write(answers, json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    die_with_parent(int(sys.argv[2]))
    serve(sys.argv[1])
