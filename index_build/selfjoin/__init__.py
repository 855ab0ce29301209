"""The self-join: the k nearest neighbours of every row, all at once.

Cells from k-means; every point lives in one and visits those nearly as near; dense tiles compare
residents with residents and visitors with residents (docs/adr/0005-self-join.md). Pure numerics:
no files, no cluster. `knn_matrix` does everything in one process. The steps, for a cluster:
`points_of`, `drawn_sample`, `choose_plan`, `partition` (any block of points), `shard_of`,
`join_shard`, `merge_lists`, `finish`.
"""

from index_build.selfjoin.cells import Cells, Lists, cells_of
from index_build.selfjoin.finish import finish
from index_build.selfjoin.join import NearLists, empty_lists, merge_lists
from index_build.selfjoin.matrix import NeighbourMatrix, Report, knn_matrix
from index_build.selfjoin.nearest import partition
from index_build.selfjoin.plan import Plan, Sample, choose_plan, drawn_sample, needs_care
from index_build.selfjoin.points import Points, points_of
from index_build.selfjoin.shards import Shard, join_shard, shard_of, shard_ranges
from index_build.selfjoin.sweep import nearest_points

__all__ = [
    "Cells",
    "Lists",
    "NearLists",
    "NeighbourMatrix",
    "Plan",
    "Points",
    "Report",
    "Sample",
    "Shard",
    "cells_of",
    "choose_plan",
    "drawn_sample",
    "empty_lists",
    "finish",
    "join_shard",
    "knn_matrix",
    "merge_lists",
    "nearest_points",
    "needs_care",
    "partition",
    "points_of",
    "shard_of",
    "shard_ranges",
]
