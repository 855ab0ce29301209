"""What a benchmark will take on disk, before it measures anything: an estimate. Pure.

Most of it are the neighbours that are kept of every repetition; then the largest index, one at a
time on each machine; then the data. How many efforts and larger k a configuration will be asked for
depends on what is measured, so the usual number stands for it.
"""

from collections import Counter
from collections.abc import Sequence

from benchmark.runner.data import Data
from benchmark.runner.group import FEW_KS
from benchmark.runner.plan import Group, Settings, batches_for, ks_for
from benchmark.runner.truth import ALL_UP_TO, CHECKED

EFFORTS, ALL_EFFORTS = 4, 8
"""Of an index that suggests its efforts so many are measured for a k; with --full the second."""
PLACE_BYTES = 4 + 4
"""A neighbour and its distance."""


def disk_bytes(data: Data, groups: Sequence[Group], settings: Settings) -> int:
    """Bytes that a benchmark of these groups takes at most at once, roughly."""
    vectors = 4 * (data.whole + data.asked) * data.d + 8 * data.base
    indexes = [
        group.n * group.method.bytes_per_row(data.d)
        for group in groups
        if "queries" in group.method.workloads
    ]
    turns: Counter[tuple[str, int]] = Counter()
    of_each = Counter((group.configuration.name, group.n) for group in groups)
    smallest = min((group.n for group in groups), default=0)
    results = 0
    for group in groups:
        key = group.configuration.name, group.n
        turn, turns[key] = turns[key], turns[key] + 1
        narrowed = bool(group.method.effort) and not settings.full
        if narrowed and group.n > smallest and turn >= max(1, of_each[key] // 2):
            continue  # a larger size takes over half of a method's configurations
        ks = ks_for(group.n, settings.ks)
        # only the first is asked for larger k, whether or not it is any better
        results += _kept_bytes(data, group, settings, ks[:FEW_KS] if narrowed and turn else ks)
    return int(vectors + max(indexes, default=0) + results)


def _kept_bytes(data: Data, group: Group, settings: Settings, ks: Sequence[int]) -> int:
    """What is kept of a group's lists."""
    method, places = group.method, sum(ks)
    checked = group.n if group.n <= ALL_UP_TO else CHECKED
    lists = 0
    if "queries" in method.workloads:
        per_effort = 0
        if "queries" in settings.workloads:
            per_effort += data.asked * len(batches_for(data.asked))
        if "all" in settings.workloads and "all" in method.workloads:
            per_effort += checked
        lists += _efforts(group, settings) * per_effort
    if "all" in settings.workloads and method.graphs:
        lists += checked
    return PLACE_BYTES * settings.repeat * places * lists


def _efforts(group: Group, settings: Settings) -> int:
    if group.configuration.efforts:
        count = len(group.configuration.efforts)
    elif not group.method.effort:
        count = 1
    else:
        count = ALL_EFFORTS if settings.full else EFFORTS
    return count if settings.efforts is None else min(count, settings.efforts)
