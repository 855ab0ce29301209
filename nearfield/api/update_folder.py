"""The directory of an update before it is a run: `update.json` says what is to be done in it.

Owns that file, and that an update which is refused leaves the directory as it found it. Refuses to
know how an update is made.
"""

import json
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from nearfield.errors import InputRejected, RunLocked, UsageError
from nearfield.files import write_bytes
from nearfield.run import UPDATE, UPDATE_FILES, Run

REFUSALS = (UsageError, InputRejected, RunLocked)


def names_in(out: Path) -> frozenset[str]:
    """What is in the directory."""
    return frozenset(entry.name for entry in out.iterdir())


@contextmanager
def unless_refused(out: Path, before: Set[str]) -> Iterator[None]:
    """What the block writes into `out` is removed when it is refused before its delta is whole;
    what it was to add, in any case.

    before: `names_in` the directory before the update wrote anything; those stay.
    """
    try:
        yield
    except REFUSALS:
        made = names_in(out) - before
        whole = (out / "delta" / "manifest.json").exists()
        for path in (out / name for name in made & ({"incoming"} if whole else UPDATE_FILES)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        raise


def is_begun(out: Path, base: Run, sha256: str, mark: str, rejected: int) -> bool:
    """Write down what is to be done, or find the same there (True); else `UsageError`.

    sha256: of the base's matrix; mark: identifies the update; rejected: what ingest turned away.
    """
    path = out / UPDATE
    if path.exists():
        there = json.loads(path.read_bytes())
        if there["fingerprint"] != mark:
            raise UsageError(
                f"{out} holds another update (of {there['base']}): choose another directory"
            )
        return True
    others = [it.name for it in out.glob("[!.]*") if it.name not in {"incoming", "rejects.csv"}]
    if others:
        raise UsageError(f"{out} isn't empty (it holds {others[0]}): choose another directory")
    frozen: dict[str, str | int] = {
        "base": str(base.folder.resolve()), "matrix": sha256, "fingerprint": mark,
        "rejected": rejected,
    }  # fmt: skip
    write_bytes(path, (json.dumps(frozen, indent=2) + "\n").encode())
    return False
