"""What a measured process is asked to do, and what it leaves behind: JSON and .npy files.

Owns both ends of that conversation. The child appends one JSON object per line to `facts.jsonl` in
the folder `out` as soon as it knows something, so that a child that is killed leaves what it had.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from nearfield.space import Int32s

FACTS = "facts.jsonl"
CHECKED = "checked.npy"
UNTOUCHED = "untouched_bytes"
"""Fact of a forked child: resident bytes of its parent, most of it code, that it hadn't itself."""
MEMORY = ("peak_bytes", "baseline_bytes", "build_peak_bytes", "build_baseline_bytes")


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask"):
    """What every child needs. `vectors`, `out`: paths; the first `n` vectors are searched."""

    method: str
    vectors: str
    out: str
    n: int
    space: str
    threads: int
    seed: int
    pinned: bool


class Build(Request, frozen=True, kw_only=True, tag="build"):
    """Make the index, save it into `folder`, tell the efforts for each k, add `add_rows` rows."""

    parameters: dict[str, Any]
    folder: str
    ks: list[int]
    add_rows: int


class FirstUse(Request, frozen=True, kw_only=True, tag="first use"):
    """Use the library in every way that it will be measured, on few of the vectors."""

    parameters: dict[str, Any]
    k: int


class Search(Request, frozen=True, kw_only=True, tag="search"):
    """Load the index in `folder` and ask it.

    `queries` None: ask for every row, k + 1 each, and keep the lists of the rows in the file
    `checked.npy` in `out`. `batches`: vectors handed over at once. `limit_bytes`: memory that index
    and answers may take beyond what the process had before; the index is then mapped where the
    library can.
    """

    folder: str
    k: int
    effort: int
    queries: str | None
    batches: list[int]
    repeat: int
    limit_bytes: int | None = None


class Graph(Request, frozen=True, kw_only=True, tag="graph"):
    """Have the method make the lists of all rows by itself; keep those of `checked.npy`."""

    parameters: dict[str, Any]
    k: int
    repeat: int


AnyRequest = Build | FirstUse | Graph | Search


def write_request(request: AnyRequest) -> Path:
    """Write a request into its folder `out`, which is made; returns the file."""
    path = Path(request.out) / "request.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(request))
    return path


def read_request(path: Path) -> AnyRequest:
    """Read what `write_request` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=AnyRequest)


def note(out: Path, **facts: Any) -> None:
    """Append facts to what the child leaves."""
    with (out / FACTS).open("a") as stream:
        stream.write(json.dumps(facts) + "\n")


def noted(out: Path) -> dict[str, Any]:
    """All facts that a child left, later ones winning; a line cut off by its end is ignored.

    Peaks and baselines hold what its parent had imported, too, whether or not it touched that.
    """
    facts: dict[str, Any] = {}
    path = out / FACTS
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            facts |= json.loads(line)
        except ValueError:
            break
    untouched = facts.pop(UNTOUCHED, 0)
    return facts | {name: facts[name] + untouched for name in MEMORY if name in facts}


def save_repetition(
    out: Path, batch: int, number: int, times: NDArray[np.float64], lists: Int32s
) -> None:
    """Keep one repetition: seconds of each call, and the lists of the checked rows."""
    np.save(out / f"times-{batch}-{number}.npy", times)
    np.save(out / f"lists-{batch}-{number}.npy", lists)
    # named only once both are there
    note(out, **{f"repetitions-{batch}": number + 1})


def repetitions(out: Path, batch: int) -> list[tuple[NDArray[np.float64], Int32s]]:
    """What `save_repetition` kept for a batch size, in order."""
    return [
        (np.load(out / f"times-{batch}-{number}.npy"), np.load(out / f"lists-{batch}-{number}.npy"))
        for number in range(noted(out).get(f"repetitions-{batch}", 0))
    ]
