"""Runs on the scheduler's host: which workers does the scheduler see? Prints one line of JSON.

`python -m nearfield.clusters.watch ADDRESS WORKERS SECONDS` waits until so many workers are there.
It runs there because the scheduler may be out of reach for the machine that asks.
"""

import json
import sys
import time

from distributed import Client

from nearfield.cluster import workers_of

POLL_S = 0.2


def watch(address: str, workers: int, timeout_s: float) -> list[str]:
    """Names of worker processes, once there are `workers` or the time is over."""
    deadline = time.monotonic() + timeout_s
    with Client(address, timeout=max(2.0, timeout_s)) as client:
        while True:
            seen = [str(worker["name"]) for worker in workers_of(client).values()]
            if len(seen) >= workers or time.monotonic() > deadline:
                return seen
            time.sleep(POLL_S)


if __name__ == "__main__":
    print(json.dumps(watch(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
