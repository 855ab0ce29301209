"""The sharded index: one library index per k-means shard, a router, and search over them.

Layout in docs/formats.md. Owns answering queries for vectors that aren't in the matrix. Refuses
the matrix's own formats.
"""

from index_build.index.build import build_index, plan_index
from index_build.index.layout import IndexConfig, IndexPlan
from index_build.index.search import Found, ShardedIndex, open_index

__all__ = [
    "Found",
    "IndexConfig",
    "IndexPlan",
    "ShardedIndex",
    "build_index",
    "open_index",
    "plan_index",
]
