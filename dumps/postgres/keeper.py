"""The process that owns an embedded Postgres server and stops it when its last user has gone.

Started by server.py as a program of its own, in its own session, so that neither Ctrl-C nor the
death of the command that started it hits the server midway. A user is a connection to the socket
`keeper`; the kernel closes it however the user ends. Protocol: the keeper says "ready" once the
server accepts connections; a user who leaves shuts its side down and reads until the end, which
comes at once, with "others use it", while others stay, and for the last after the server stopped.
Standard library only; refuses to know what the database holds.
"""

import contextlib
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

READY = b"database system is ready to accept connections"
GREETING = b"ready\n"
STAYS = b"others use it\n"
STOP_TIMEOUT_S = 60.0
PR_SET_PDEATHSIG = 1


class Keeper:
    """Serves users until none is left or the server has ended."""

    def __init__(self, plan: dict[str, Any], server: subprocess.Popen[bytes]) -> None:
        self.server = server
        self.log = open(plan["log"], "wb", buffering=0)  # noqa: SIM115, PTH123 (kept until exit)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{plan['folder']}/keeper")
        self.listener.listen()
        self.users: set[socket.socket] = set()
        self.ready = self.stopping = False
        self.recent = b""
        self.selector = selectors.DefaultSelector()
        assert server.stdout is not None  # noqa: S101 (it is a pipe)
        self.output = server.stdout.fileno()
        self.selector.register(self.output, selectors.EVENT_READ)
        self.selector.register(self.listener, selectors.EVENT_READ)
        self.admit(socket.socket(fileno=plan["first_user"]))

    def run(self) -> None:
        """Return when every process of the server has ended."""
        while True:
            events = self.selector.select(STOP_TIMEOUT_S if self.stopping else None)
            if not events:
                self.server.send_signal(signal.SIGQUIT)
            for key, _ in events:
                if key.fileobj is self.listener:
                    self.admit(self.listener.accept()[0])
                elif key.fd != self.output:
                    self.dismiss(key.fileobj)  # type: ignore[arg-type]
                elif not self.relay():
                    return

    def admit(self, user: socket.socket) -> None:
        """Take a user in; say when the server is ready (never, if it has just died)."""
        self.users.add(user)
        self.selector.register(user, selectors.EVENT_READ)
        if self.ready and self.server.poll() is None:
            self.greet(user)

    def greet(self, user: socket.socket) -> None:
        """Tell a user that the server accepts connections."""
        # a user that has died meanwhile shows up as the end of its connection
        with contextlib.suppress(BrokenPipeError):
            user.sendall(GREETING)

    def dismiss(self, user: socket.socket) -> None:
        """Let a user go; stop the server if it was the last."""
        self.selector.unregister(user)
        if len(self.users) > 1:
            self.users.remove(user)
            with contextlib.suppress(BrokenPipeError):
                user.sendall(STAYS)
            user.close()
            return
        # the last user and those who knock from now on are let go when this process ends
        self.selector.unregister(self.listener)
        self.stopping = True
        self.server.send_signal(signal.SIGINT)

    def relay(self) -> bool:
        """Pass on to the log what the server says; False when all of its processes have ended."""
        said = os.read(self.output, 1 << 16)
        # a full disk must not keep the server from being stopped in order
        with contextlib.suppress(OSError):
            self.log.write(said)
        self.recent = (self.recent + said)[-(1 << 16) :]
        if not self.ready and READY in self.recent:
            self.ready = True
            for user in self.users:
                self.greet(user)
        return bool(said)


def start(plan: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start the server; it gets the signal to stop should this process die."""
    libc = ctypes.CDLL(None)
    return subprocess.Popen(
        plan["command"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        cwd="/",
        env=plan["environment"],
        pass_fds=plan["inherited"],
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT),  # noqa: PLW1509
        **plan["account"],
    )


def main() -> None:
    """Keep the server of the plan that is given as JSON on the command line."""
    plan = json.loads(sys.argv[1])
    try:
        server = start(plan)
        # kept to the end of the process: its users take the end of their connection for the news
        # that all is gone
        keeper = Keeper(plan, server)
        keeper.run()
        server.wait()
    finally:
        shutil.rmtree(plan["folder"], ignore_errors=True)


if __name__ == "__main__":
    main()
