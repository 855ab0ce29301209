"""What all tests share: where real data lies, and a disk small enough to fill."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

# the same examples in every run, however slow the machine is
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

# started in the background, this process ignores Ctrl-C, and so would the programs that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    named = os.environ.get("NEARFIELD_TEST_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("no real data here (NEARFIELD_TEST_DATA)")
    return Path(named)


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many bytes; skips where mounting isn't allowed."""
    mounted: list[Path] = []

    def mount(size_bytes: int) -> Path:
        place = tmp_path / f"small-{len(mounted)}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", place],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip("mounting a small file system needs root")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", place], check=True)
