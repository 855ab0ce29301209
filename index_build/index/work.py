"""The task that makes one shard's index: built and saved in one child, checked in another.

The second child opens the file as every reader will: it counts, has members find themselves, and
finds the least effort that reaches the recall asked of a shard. Only then is the file's manifest
written. Run as a module it is the child.
"""

import resource
import shutil
import time
from pathlib import Path

import numpy as np

from benchmark.methods.base import Index, tie_aware_recall
from index_build.child import child_arguments, run_child
from index_build.index.layout import (
    FORMAT_VERSION,
    LIBRARY,
    LIBRARY_MANIFEST,
    SHARD_INDEX_KIND,
    IndexConfig,
    measured_widths,
    read_config,
    shard_path,
)
from index_build.index.libraries import build_library, load_library
from index_build.shards import read_shard, use_threads
from nearfield.distances import list_distances, sort_lists
from nearfield.errors import NearfieldError, ShardFailed
from nearfield.exact import exact_search
from nearfield.files import fsync_path
from nearfield.manifest import read_manifest, write_manifest
from nearfield.neighbours import EMPTY
from nearfield.space import Float32s, SpaceName

SAMPLE = 200
RECALL = 0.99
"""What a shard's own lists must reach; the loss by asking few shards comes on top."""
MODULE = "index_build.index.work"


def shard_is_finished(index: Path, config: IndexConfig, number: int) -> bool:
    """Whether the shard has a whole library file of this configuration."""
    try:
        manifest = read_manifest(
            shard_path(index, number) / LIBRARY_MANIFEST, kind=SHARD_INDEX_KIND
        )
    except NearfieldError:
        return False
    return manifest.fingerprint == config.shard_fingerprint(number)


def shard_index(index: str, number: int, *, threads: int) -> int:
    """Task: the library's file of one shard and its manifest; returns the number."""
    given = {"index": index, "number": number, "threads": threads}
    started, used = time.monotonic(), _children_s()
    run_child(MODULE, f"build of shard {number}", given | {"stage": "build"})
    spent = {
        "build_s": round(time.monotonic() - started, 2),
        "build_processor_s": round(_children_s() - used, 2),
    }
    run_child(MODULE, f"check of shard {number}", given | {"stage": "check", "spent": spent})
    return number


def _children_s() -> float:
    """Processor seconds of this worker's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def build_file(index: Path, config: IndexConfig, number: int, threads: int) -> None:
    """Build the library's index of a shard and save it."""
    _, vectors = read_shard(shard_path(index, number))
    built = build_library(np.ascontiguousarray(vectors), config, threads=threads)
    folder = shard_path(index, number) / LIBRARY
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    # whole once the manifest is there, which the second child writes
    for name in built.save(folder):
        fsync_path(folder / name)
    fsync_path(folder)


def check_file(
    index: Path, config: IndexConfig, number: int, threads: int, spent: dict[str, float]
) -> None:
    """Open the saved file, try it, and write its manifest. Raises `ShardFailed`.

    spent: what building it cost, for the manifest.
    """
    folder = shard_path(index, number)
    _, vectors = read_shard(folder)
    loaded = load_library(folder / LIBRARY, config, threads=threads)
    efforts, recall = tuned(loaded, np.ascontiguousarray(vectors), config)
    write_manifest(
        folder / LIBRARY_MANIFEST,
        kind=SHARD_INDEX_KIND,
        fingerprint=config.shard_fingerprint(number),
        format_version=FORMAT_VERSION,
        files=sorted(f"{LIBRARY}/{file.name}" for file in (folder / LIBRARY).iterdir()),
        facts={
            "method": config.method,
            "parameters": loaded.method.parameters,
            "rows": len(vectors),
            "efforts": efforts,
            "recall": recall,
            **spent,
        },
    )


def tuned(
    loaded: Index, vectors: Float32s, config: IndexConfig
) -> tuple[dict[str, int], dict[str, float]]:
    """By k, the first place on the ladder of efforts that reaches `RECALL`, else the last; and the
    recall there. Ladders depend on k: what suffices for many neighbours is too little for few.

    Members are asked for their neighbours. Raises `ShardFailed` where a member finds neither itself
    nor anything as near: then the file isn't of these vectors.
    """
    n = len(vectors)
    rows = np.sort(np.random.default_rng(config.seed).choice(n, min(SAMPLE, n), replace=False))
    queries = np.ascontiguousarray(vectors[rows])
    _, truth = exact_search(queries, vectors, min(config.k + 1, n), space=config.space)
    places, recalls = dict[str, int](), dict[str, float]()
    for k in measured_widths(config.k):
        width = min(k + 1, n)
        for place, effort in enumerate(loaded.efforts(width)):
            found = _distances(loaded, queries, vectors, config.space, width, effort)
            # finding oneself is no merit
            recall = tie_aware_recall(found[:, 1:], truth[:, 1:width]) if width > 1 else 1.0
            places[str(k)], recalls[str(k)] = place, recall
            if recall >= RECALL:
                break
    nearest = float((found[:, 0] <= truth[:, 0] + 1e-6 * np.abs(truth[:, 0])).mean())
    if nearest < 0.5:
        raise ShardFailed(
            f"of {len(rows)} members only {nearest:.0%} find themselves in the saved index"
        )
    return places, recalls


def _distances(
    loaded: Index, queries: Float32s, vectors: Float32s, space: SpaceName, k: int, effort: int
) -> Float32s:
    """Of what the library finds, ascending."""
    found = loaded.search(queries, k, effort)
    n = len(vectors)
    if found.max(initial=EMPTY) >= n or found.min(initial=0) < EMPTY:
        raise ShardFailed(f"the saved index names row {found.max()} of {n}: build again")
    return sort_lists(found, list_distances(queries, vectors, found, space))[1]


def main() -> None:
    """The child."""
    given = child_arguments()
    use_threads(given["threads"])
    index = Path(given["index"])
    work = (index, read_config(index), given["number"], given["threads"])
    if given["stage"] == "build":
        build_file(*work)
    else:
        check_file(*work, given["spent"])


if __name__ == "__main__":
    main()
