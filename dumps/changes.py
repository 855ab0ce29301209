"""The change report: what differs between two runs, before the second one is published.

Recordings are matched by id, so runs with other rows can be compared. Owns the comparison and its
thresholds; refuses to decide whether to publish. Reads the matrix files and nothing else.
"""

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearfield.errors import UsageError
from nearfield.run import Run
from nearfield.space import Float32s, Int32s

BLOCK = 16_384
NOBODY = -1


@dataclass(frozen=True)
class Thresholds:
    """Past which there is an alarm; None: never. Shares are of 0..1."""

    min_overlap: float | None = None
    max_shift: float | None = None
    max_removed: float | None = None


@dataclass(frozen=True)
class ChangeReport:
    """What differs. `compared` lists of recordings that are in both, `changed` of which differ.

    overlap: mean share of a list's neighbours that are in the other's too, `overlap_low` its first
    percentile. distance_*: means over the compared lists; distance_shift: relative. alarms:
    sentences, one per threshold that was passed.
    """

    before: int
    after: int
    added: int
    removed: int
    compared: int
    changed: int
    overlap: float
    overlap_low: float
    distance_before: float
    distance_after: float
    distance_shift: float
    alarms: tuple[str, ...]


def compare_runs(
    old: Run,
    new: Run,
    thresholds: Thresholds | None = None,
    *,
    sample: int = 100_000,
    seed: int = 0,
) -> ChangeReport:
    """Compare the finished matrices of two runs on at most `sample` recordings that are in both.

    Raises `UsageError` for thresholds that are no shares and runs in different spaces,
    `MissingFile`, `DamagedArtefact`. Cost: all ids, and the sampled lists.
    """
    asked = thresholds or Thresholds()
    for share in (asked.min_overlap, asked.max_removed):
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"expected a share between 0 and 1 as threshold, got {share:g}")
    if old.config.space != new.config.space:
        raise UsageError(
            f"{old.path} is in space {old.config.space}, {new.path} in {new.config.space}:"
            " their distances can't be compared"
        )
    for run in (old, new):
        run.finished_matrix(verify=False)
    with h5py.File(old.matrix, "r") as before, h5py.File(new.matrix, "r") as after:
        return _compared(before, after, asked, sample, seed)


def _compared(
    before: h5py.File, after: h5py.File, thresholds: Thresholds, sample: int, seed: int
) -> ChangeReport:
    there, here = _live(before), _live(after)
    # the row in the new run of each row of the old one
    place = _places(before, after)
    place[~there] = NOBODY
    place[place >= 0] = np.where(here[place[place >= 0]], place[place >= 0], NOBODY)
    both = np.flatnonzero(place >= 0)
    drawn = np.random.default_rng(seed).choice(both, min(sample, len(both)), replace=False)
    rows = np.sort(drawn)
    overlaps, changed, means = _lists(before, after, rows, place)
    counted = {
        "before": int(there.sum()),
        "after": int(here.sum()),
        "added": int(here.sum()) - len(both),
        "removed": int(there.sum()) - len(both),
    }
    old_mean, new_mean = (float(values.mean()) if len(values) else 0.0 for values in means)
    shift = (new_mean - old_mean) / abs(old_mean) if old_mean else 0.0
    overlap = float(overlaps.mean()) if len(overlaps) else 0.0
    gone = counted["removed"] / max(1, counted["before"])
    return ChangeReport(
        **counted,
        compared=len(rows),
        changed=changed,
        overlap=overlap,
        overlap_low=float(np.percentile(overlaps, 1)) if len(overlaps) else 0.0,
        distance_before=old_mean,
        distance_after=new_mean,
        distance_shift=shift,
        alarms=tuple(_alarms(thresholds, overlap, shift, gone, len(rows))),
    )


def _alarms(
    thresholds: Thresholds, overlap: float, shift: float, gone: float, compared: int
) -> list[str]:
    found = []
    if not compared and thresholds != Thresholds():
        found.append("no recording is in both runs: are these the right ones, and their ids alike?")
    if thresholds.min_overlap is not None and overlap < thresholds.min_overlap:
        found.append(f"{overlap:.4f} of the neighbours stayed, less than {thresholds.min_overlap}")
    if thresholds.max_shift is not None and abs(shift) > thresholds.max_shift:
        found.append(f"distances shifted by {shift:+.4f}, more than {thresholds.max_shift}")
    if thresholds.max_removed is not None and gone > thresholds.max_removed:
        found.append(f"{gone:.4f} of the recordings are gone, more than {thresholds.max_removed}")
    return found


def _live(file: h5py.File) -> NDArray[np.bool_]:
    out = np.ones(len(file["neighbours"]), bool)
    if "removed" in file:
        out[file["removed"][:]] = False
    return out


def _places(before: h5py.File, after: h5py.File) -> NDArray[np.int64]:
    wanted, known = (_ids(file) for file in (before, after))
    found = pc.index_in(wanted, value_set=known).fill_null(NOBODY)
    return np.array(found.to_numpy(zero_copy_only=False), dtype=np.int64)


def _ids(file: h5py.File) -> pa.Array:
    values = file["recording_ids"][:]
    if values.dtype.kind == "O":
        return pa.array(values, pa.binary()).cast(pa.string())
    return pa.array(values).cast(pa.string())


def _lists(
    before: h5py.File, after: h5py.File, rows: NDArray[np.int64], place: NDArray[np.int64]
) -> tuple[NDArray[np.float64], int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    overlaps: list[Any] = []
    changed = 0
    old_means: list[Any] = []
    new_means: list[Any] = []
    for first in range(0, len(rows), BLOCK):
        chosen = rows[first : first + BLOCK]
        near, far = _chosen(before, chosen)
        other, other_far = _chosen(after, place[chosen])
        width = min(near.shape[1], other.shape[1])
        mapped = np.where(near[:, :width] >= 0, place[near[:, :width]], NOBODY)
        both = np.sort(np.concatenate([mapped, other[:, :width]], axis=1), axis=1)
        same = ((both[:, 1:] == both[:, :-1]) & (both[:, 1:] >= 0)).sum(axis=1)
        overlaps.append(same / width)
        differs = (mapped != other[:, :width]).any(axis=1)
        differs |= (far[:, :width] != other_far[:, :width]).any(axis=1)
        changed += int(differs.sum())
        old_means.append(far[:, :width].mean(axis=1, dtype=np.float64))
        new_means.append(other_far[:, :width].mean(axis=1, dtype=np.float64))
    empty = [np.empty(0)]
    together = [np.concatenate(parts or empty) for parts in (overlaps, old_means, new_means)]
    return together[0], changed, (together[1], together[2])


def _chosen(file: h5py.File, rows: NDArray[np.int64]) -> tuple[Int32s, Float32s]:
    """Lists of some rows, in that order. HDF5 wants them ascending, and is slow at picking."""
    order = np.argsort(rows)
    ascending = rows[order]
    out = []
    for name in ("neighbours", "distances"):
        dataset = file[name]
        values = np.empty((len(rows), dataset.shape[1]), dataset.dtype)
        for start in range(0, len(dataset), 65_536):
            low, high = np.searchsorted(ascending, (start, start + 65_536))
            if low < high:
                block = dataset[start : start + 65_536]
                values[order[low:high]] = block[ascending[low:high] - start]
        out.append(values)
    return out[0], out[1]
