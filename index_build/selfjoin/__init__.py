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
from index_build.selfjoin.circular import Sorted, circular_neighbours, on_track, track_of, walk
from index_build.selfjoin.finish import Pairs, finish, follows, lengths_from, pair_lengths, settle
from index_build.selfjoin.group import grouped_cells
from index_build.selfjoin.join import NearLists, empty_lists, lists_in, merge_lists
from index_build.selfjoin.matrix import NeighbourMatrix, join_distinct, knn_matrix
from index_build.selfjoin.memory import Memory
from index_build.selfjoin.nearest import panel_of
from index_build.selfjoin.plan import (
    Plan,
    Sample,
    cell_counts,
    cell_size,
    choose_plan,
    drawn,
    drawn_sample,
)
from index_build.selfjoin.points import Points, frozen, points_of
from index_build.selfjoin.probing import (
    Probing,
    asked_cells,
    askers_by_cell,
    chosen_probing,
    residents_of,
)
from index_build.selfjoin.product_shards import (
    Askers,
    Begun,
    Calls,
    ProductShard,
    Residents,
    absorb,
    begun_lists,
    calls_by_shard,
    found_for_guests,
    grouped_products,
    residents_by_shard,
    shard_of_products,
)
from index_build.selfjoin.products import Products, products_of, sort_lists
from index_build.selfjoin.request import Report, Request
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
from index_build.selfjoin.train import Trained, trained, trained_from, training_points

__all__ = [
    "Askers",
    "Begun",
    "Calls",
    "Cells",
    "Lists",
    "Members",
    "Memory",
    "NearLists",
    "NeighbourMatrix",
    "Pairs",
    "Plan",
    "Points",
    "Probing",
    "ProductShard",
    "Products",
    "Report",
    "Request",
    "Residents",
    "Sample",
    "Shard",
    "ShardLists",
    "Sorted",
    "Trained",
    "absorb",
    "all_members",
    "asked_cells",
    "askers_by_cell",
    "begun_lists",
    "calls_by_shard",
    "cell_counts",
    "cell_size",
    "cells_of",
    "choose_plan",
    "chosen_probing",
    "circular_neighbours",
    "cut_by_shard",
    "drawn",
    "drawn_sample",
    "empty_lists",
    "finish",
    "follows",
    "found_for_guests",
    "frozen",
    "grouped_cells",
    "grouped_products",
    "join_distinct",
    "join_shard",
    "knn_matrix",
    "lengths_from",
    "lists_by",
    "lists_in",
    "merge_lists",
    "nearest_points",
    "on_track",
    "pair_lengths",
    "panel_of",
    "partition",
    "points_of",
    "products_of",
    "resident_limits",
    "residents_by_shard",
    "residents_of",
    "settle",
    "shard_of_products",
    "sort_lists",
    "starts_of",
    "track_of",
    "trained",
    "trained_from",
    "training_points",
    "walk",
]
