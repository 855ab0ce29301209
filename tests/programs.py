"""Small programs that tests start, and what they leave."""

import subprocess
import sys
from pathlib import Path


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, **options)


def exit_status(code: str, *arguments: object) -> int:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], check=False
    ).returncode


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
