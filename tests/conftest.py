"""What all tests share: where real data lies, if it is there."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NEARFIELD_TEST_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no real data here (NEARFIELD_TEST_DATA)")
    return folder
