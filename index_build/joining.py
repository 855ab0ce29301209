"""The join of one set of vectors by a method: the self-join, or a library asked row by row.

Owns the choice between them, nothing of either.
"""

from benchmark.methods import METHODS, Asked, neighbours_of_all
from benchmark.methods.spelled import method_spelled, spelled
from index_build.selfjoin import knn_matrix
from nearfield.space import Float32s, Int32s

SELFJOIN = "selfjoin"
JOINS = (SELFJOIN, *(name for name in METHODS if name != "exact"))
"""Exact search isn't one: it compares rows with all vectors, not with those of a shard."""


def is_join(method: str) -> bool:
    """Whether `joined` takes it; raises `UsageError` for parameters that the method hasn't."""
    name, parameters = spelled(method)
    if name not in JOINS or (name == SELFJOIN and parameters):
        return False
    return name == SELFJOIN or method_spelled(method)[0].name == name


def joined(method: str, vectors: Float32s, asked: Asked) -> tuple[Int32s, Float32s]:
    """Neighbours int32 and distances float32 [n, min(k, n - 1)] of prepared vectors float32 [n, d].

    method: a name, or with build parameters as in `faiss-hnsw(links=32)`, or
    `pynndescent(graph=True)`. Lists as `neighbours_of_all` describes them. Raises `UsageError` for
    an unknown method.
    """
    if method != SELFJOIN:
        library, graph = method_spelled(method)
        return neighbours_of_all(library, vectors, asked, graph=graph)
    found = knn_matrix(
        vectors,
        asked.k,
        space=asked.space,
        recall=asked.recall,
        threads=asked.threads,
        seed=asked.seed,
    )
    return found.neighbours, found.distances
