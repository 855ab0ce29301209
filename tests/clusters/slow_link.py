"""A link between two network namespaces with a rate and a delay, made by the kernel.

A cable of two virtual cards. Its rate is a token bucket at each end. Kernels without netem have no
delay, but cards that look at what has arrived only every so often. The right end has such a card:
whoever asks again when an answer has come does so just after a look, and waits for the next one,
so a round trip takes one period of looking. With such cards at both ends it would take two where
they happen to look at the same moment. Nothing but the kernel touches a packet, as with a real
card; what it costs is the kernel's work for each, which hosts have on real networks, too.
`measured` tells what became of it.
"""

import ctypes
import fcntl
import json
import socket
import statistics
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCETHTOOL, SET_GRO, SET_TSO = 0x8946, 0x2C, 0x1F
FRAME = 65_000
"""Segments pass whole, as they do until a real card cuts them."""
QUEUE_BYTES = 1 << 20
FOR_EVER = 2**31 - 1
DEVICE = "wire0"
PORT = 5117
SPACES = Path("/run/netns")
TRIPS, TRY_S = 500, 1.5


@dataclass(frozen=True)
class End:
    """One host's end: the name of its network namespace, and its address."""

    space: str
    address: str


@contextmanager
def link(left, right, *, mbit, delay_ms):
    """The link, for the block."""
    _ip(left, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", right.space)
    try:
        for end in left, right:
            _ip(end, "addr", "add", f"{end.address}/24", "dev", DEVICE)
            _ip(end, "link", "set", DEVICE, "up", "mtu", str(FRAME))
            subprocess.run(["tc", "-n", end.space, "qdisc", "add", "dev", DEVICE, "root", "tbf",
                            "rate", f"{mbit}mbit", "burst", str(2 * FRAME),
                            "limit", str(QUEUE_BYTES)], check=True)  # fmt: skip
            _gather(end)
        _look_every(right, delay_ms)
        yield
    finally:
        _ip(left, "link", "del", DEVICE)


def _ip(end, *words):
    subprocess.run(["ip", "-n", end.space, *words], check=True)


def _gather(end):
    with _socket_of(end) as control:
        # a card passes on at once what it doesn't gather; and gathers only what comes in pieces
        for command, value in ((SET_GRO, 1), (SET_TSO, 0)):
            wanted = ctypes.create_string_buffer(struct.pack("II", command, value))
            asked = struct.pack("16sP", DEVICE.encode(), ctypes.addressof(wanted))
            fcntl.ioctl(control, SIOCETHTOOL, asked)


def _look_every(end, delay_ms):
    script = (
        f"cd /sys/class/net/{DEVICE} && echo {round(delay_ms * 1e6)} >gro_flush_timeout && "
        f"echo {FOR_EVER} >napi_defer_hard_irqs"
    )
    subprocess.run(["ip", "netns", "exec", end.space, "sh", "-c", script], check=True)


def _socket_of(end):
    """A socket in the namespace of a host."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own, (SPACES / end.space).open() as other:
        _enter(libc, other)
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        finally:
            _enter(libc, own)


def _enter(libc, space):
    if libc.setns(space.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def measured(left, right):
    """What a link does: its rate in Mbit/s, and the median and 95th percentile of a round trip."""
    words = [sys.executable, "-m", __name__]
    with subprocess.Popen(["ip", "netns", "exec", left.space, *words, left.address],
                          stdout=subprocess.PIPE, text=True) as answering:  # fmt: skip
        try:
            assert answering.stdout.readline() == "ready\n"
            asked = subprocess.run(
                ["ip", "netns", "exec", right.space, *words, left.address, "ask"],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
        finally:
            answering.kill()
    return json.loads(asked.stdout)


def answer(address):
    """Send back what comes, byte by byte; of a second connection, nothing until its end."""
    with socket.create_server((address, PORT)) as listening:
        print("ready", flush=True)
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while piece := connection.recv(1):
            connection.sendall(piece)
        connection, _ = listening.accept()
        content = bytearray(1 << 20)
        while connection.recv_into(content):
            pass
        connection.sendall(b".")


def ask(address):
    """The other side of `answer`."""
    trips, content, sent = [], bytes(1 << 20), 0
    with socket.create_connection((address, PORT)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(TRIPS):
            started = time.perf_counter()
            connection.sendall(b".")
            connection.recv(1)
            trips.append(1000 * (time.perf_counter() - started))
    with socket.create_connection((address, PORT)) as connection:
        started = time.perf_counter()
        while time.perf_counter() - started < TRY_S:
            connection.sendall(content)
            sent += len(content)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        seconds = time.perf_counter() - started
    return {
        "mbit": round(8e-6 * sent / seconds),
        "round trip ms": round(statistics.median(trips), 2),
        "95%": round(statistics.quantiles(trips, n=20)[-1], 2),
    }


if __name__ == "__main__":
    if sys.argv[2:] == ["ask"]:
        print(json.dumps(ask(sys.argv[1])))
    else:
        answer(sys.argv[1])
