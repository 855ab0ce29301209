"""A link between two network namespaces with a rate and a delay, for kernels without netem.

    python -m tests.clusters.slow_link SPACE ADDRESS SPACE ADDRESS --mbit 1000 --delay-ms 1

Two TUN devices, one in each namespace, and this process between them: a packet leaves `delay` after
the wire has finished with it, and the wire does one at a time. Prints `ready`, then runs until it
is ended; on SIGTERM prints the bytes that went each way as JSON. Its processor time is nobody's
wire: it takes from the hosts, so what they reach over it is a lower bound.
"""

import argparse
import ctypes
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
# whole segments of up to 64 KiB pass as one packet, checksums left to the end that needs them
CHECKSUM, SEGMENTS_4 = 0x01, 0x02
HEADER = 10
PACKET = HEADER + 65536
QUEUE_BYTES = 1 << 20
CLONE_NEWNET = 0x40000000
DEVICE = "wire0"


def opened(space, address):
    """A TUN device in a namespace, up, with its address; what we hold is its other side."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/self/ns/net").open() as own, Path(f"/run/netns/{space}").open() as other:
        _enter(libc, other)
        try:
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", DEVICE.encode(), flags))
            fcntl.ioctl(device, TUNSETVNETHDRSZ, struct.pack("i", HEADER))
            fcntl.ioctl(device, TUNSETOFFLOAD, CHECKSUM | SEGMENTS_4)
        finally:
            _enter(libc, own)
    for words in (("addr", "add", f"{address}/24", "dev", DEVICE),
                  ("link", "set", DEVICE, "up", "txqueuelen", "1000")):  # fmt: skip
        subprocess.run(["ip", "-n", space, *words], check=True)
    return device


def _enter(libc, space):
    if libc.setns(space.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Direction(threading.Thread):
    """Carries packets from one device to the other."""

    def __init__(self, source, target, rate, delay_s):
        super().__init__(daemon=True)
        self.source, self.target = source, target
        self.rate, self.delay_s = rate, delay_s
        self.bytes = self.packets = 0

    def run(self):
        """Until the process ends."""
        queue, queued, free_at = deque(), 0, 0.0
        while True:
            now = time.monotonic()
            while queue and queue[0][0] <= now:
                _at, packet = queue.popleft()
                queued -= len(packet)
                self._deliver(packet)
            wait = queue[0][0] - now if queue else None
            if queued > QUEUE_BYTES:
                time.sleep(wait)
                continue
            if not select.select([self.source], [], [], wait)[0]:
                continue
            packet = os.read(self.source, PACKET)
            size = len(packet) - HEADER
            free_at = max(free_at, time.monotonic()) + size / self.rate
            queue.append((free_at + self.delay_s, packet))
            queued += len(packet)
            self.bytes, self.packets = self.bytes + size, self.packets + 1

    def _deliver(self, packet):
        try:
            os.write(self.target, packet)
        except OSError as error:  # full, or not up: a wire loses it
            print(f"lost a packet of {len(packet)}: {error}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ends", nargs=4, metavar=("SPACE", "ADDRESS", "SPACE", "ADDRESS"))
    parser.add_argument("--mbit", type=float, default=1000)
    parser.add_argument("--delay-ms", type=float, default=1.0, help="there and back")
    asked = parser.parse_args()
    left, right = opened(*asked.ends[:2]), opened(*asked.ends[2:])
    rate, delay_s = asked.mbit * 1e6 / 8, asked.delay_ms / 2000
    ways = [Direction(left, right, rate, delay_s), Direction(right, left, rate, delay_s)]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    for way in ways:
        way.start()
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    print(json.dumps([{"bytes": way.bytes, "packets": way.packets} for way in ways]), flush=True)


if __name__ == "__main__":
    main()
