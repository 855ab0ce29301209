"""The self-join: the k nearest neighbours of every row, all at once.

Cells from k-means; every point lives in one and visits those nearly as near; dense tiles compare
residents with residents and visitors with residents (docs/adr/0005-self-join.md). Pure numerics:
no files, no cluster. `knn_matrix` does everything in one process. The steps, for a cluster
(docs/adr/0007-cluster-shards.md): `points_of`, `drawn_sample`, `choose_plan`, `grouped_cells`;
`partition` of any range of points, `cut_by_shard`; `resident_limits` and `join_shard` of a shard;
`settle`.
"""

from index_build.selfjoin.border import partition
from index_build.selfjoin.cells import Cells, Lists, cells_of, lists_by, starts_of
from index_build.selfjoin.circular import circular_neighbours
from index_build.selfjoin.finish import Pairs, finish, pair_lengths, settle
from index_build.selfjoin.group import grouped_cells
from index_build.selfjoin.join import NearLists, empty_lists, merge_lists
from index_build.selfjoin.matrix import NeighbourMatrix, knn_matrix
from index_build.selfjoin.nearest import panel_of
from index_build.selfjoin.plan import Plan, Sample, choose_plan, drawn_sample
from index_build.selfjoin.points import Points, frozen, points_of
from index_build.selfjoin.request import Report
from index_build.selfjoin.shards import (
    Members,
    Shard,
    ShardLists,
    all_members,
    cut_by_shard,
    join_shard,
    resident_limits,
)
from index_build.selfjoin.sweep import nearest_points

__all__ = [
    "Cells",
    "Lists",
    "Members",
    "NearLists",
    "NeighbourMatrix",
    "Pairs",
    "Plan",
    "Points",
    "Report",
    "Sample",
    "Shard",
    "ShardLists",
    "all_members",
    "cells_of",
    "choose_plan",
    "circular_neighbours",
    "cut_by_shard",
    "drawn_sample",
    "empty_lists",
    "finish",
    "frozen",
    "grouped_cells",
    "join_shard",
    "knn_matrix",
    "lists_by",
    "merge_lists",
    "nearest_points",
    "pair_lengths",
    "panel_of",
    "partition",
    "points_of",
    "resident_limits",
    "settle",
    "starts_of",
]
