"""One process at a time on a prefix of an object store, as far as a store allows it.

The holder keeps an object `.lock` there that names it, and writes it anew every `RENEW_S`. Whoever
finds one that doesn't change for `EXPIRES_S`, by its own clock, takes over; at once when the holder
was a process of this machine that is dead. Two can't begin together where the store knows
If-None-Match; where it doesn't, or when a holder was cut off from the store, the other is found out
at the next renewal: `Hold.check` then raises. Parts are pure functions of the configuration and
whole or absent, so that two at work cost time, not a wrong matrix.
"""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nearfield.errors import NearfieldError, RunLocked, StoreError
from nearfield.objects import ObjectPath

RENEW_S = 10.0
EXPIRES_S = 60.0
NAME = ".lock"

Owner = dict[str, object]
"""What the object says of its holder; empty: nobody."""
UNREADABLE: Owner = {"host": "an unknown host: the lease can't be read"}


@contextmanager
def leased(directory: ObjectPath) -> Iterator["Hold"]:
    """Hold the lease of `directory` for the block.

    Raises `RunLocked`, naming the holder, when another process has it: after up to `RENEW_S`, since
    only a renewal shows that it lives.
    """
    hold = Hold(directory / NAME)
    hold.take()
    renewing = threading.Thread(target=hold.renew_until_closed, daemon=True, name="lease")
    renewing.start()
    try:
        yield hold
    finally:
        hold.closing.set()
        renewing.join()
        hold.give_back()


class Hold:
    """A lease: one token of ours, in the object that all look at."""

    def __init__(self, path: ObjectPath) -> None:
        self.path, self.closing = path, threading.Event()
        self._owner = {
            "token": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(),
            "machine": _machine(), "started": _started(os.getpid()),
        }  # fmt: skip
        self._renewals = 0
        self._renewed = time.monotonic()
        self._other: str | None = None

    def check(self) -> None:
        """Raise `RunLocked` if another has taken over, `StoreError` if that can't be known."""
        if self._other is not None:
            raise RunLocked(
                f"{self.path.parent} was taken over by another nearfield process ({self._other}), "
                "since this one couldn't be heard. What is finished is kept; leave it to the other"
            )
        if time.monotonic() - self._renewed > EXPIRES_S:
            raise StoreError(
                f"{self.path} couldn't be renewed for {EXPIRES_S:.0f} s: the object store can't be "
                "reached. What is finished is kept: run the same command again to resume"
            )

    def take(self) -> None:
        """Become the holder, or raise `RunLocked`."""
        while not self.path.create(self._content()):
            silent = self._waited_for()
            if silent:
                if _read(self.path) != silent:
                    raise _locked(self.path, _read(self.path))
                self.path.write_bytes(self._content())
                break
        if not self._mine():
            raise _locked(self.path, _read(self.path))
        # waiting for another to end doesn't count as silence of our own
        self._renewed = time.monotonic()

    def renew_until_closed(self) -> None:
        """Write the object anew, again and again; notes when it is another's."""
        while not self.closing.wait(RENEW_S):
            try:
                if not self._mine():
                    self._other = _named(_read(self.path))
                    return
                self._renewals += 1
                self.path.write_bytes(self._content())
                self._renewed = time.monotonic()
            except NearfieldError:
                continue  # `check` tells once it has lasted

    def give_back(self) -> None:
        """Remove the object, if it is ours and the store can be reached; else it expires."""
        try:
            if self._mine():
                self.path.unlink()
        except (NearfieldError, OSError):
            return

    def _waited_for(self) -> Owner:
        """The holder that is dead or gave no sign; nobody, if it gave the lease back meanwhile.

        Raises `RunLocked` at its first sign.
        """
        before = _read(self.path)
        if before and not _died(before):
            print(
                f"{self.path.parent} is in use by {_named(before)}: waiting up to "
                f"{EXPIRES_S:.0f} s for a sign of it",
                file=sys.stderr,
            )
        deadline = time.monotonic() + EXPIRES_S
        found = before
        while found and not _died(found) and time.monotonic() < deadline:
            time.sleep(min(1.0, RENEW_S / 5))
            found = _read(self.path)
            if found and found != before:
                raise _locked(self.path, found)
        return found

    def _content(self) -> bytes:
        return json.dumps(self._owner | {"renewals": self._renewals}).encode()

    def _mine(self) -> bool:
        return _read(self.path).get("token") == self._owner["token"]


def _read(path: ObjectPath) -> Owner:
    """What the object says; nothing if there is none."""
    try:
        found = json.loads(path.read_bytes())
    except NearfieldError:
        raise
    except FileNotFoundError:
        return {}
    except ValueError:
        return UNREADABLE
    return found if isinstance(found, dict) else UNREADABLE


def _locked(path: ObjectPath, holder: Owner) -> RunLocked:
    return RunLocked(
        f"{path.parent} is in use by another nearfield process ({_named(holder)}). "
        "Wait until it ends, or choose another place"
    )


def _named(holder: Owner) -> str:
    return f"pid {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"


def _died(holder: Owner) -> bool:
    """Whether the holder was a process of this very machine that has ended."""
    if holder.get("machine") != _machine():
        return False
    pid = holder.get("pid")
    return not isinstance(pid, int) or _started(pid) != holder.get("started")


def _machine() -> str:
    """This boot of this machine, and the process numbers that count here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
