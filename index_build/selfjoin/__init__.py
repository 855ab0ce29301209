"""The self-join: the k nearest neighbours of every row, all at once.

Cells from k-means; every point lives in one and visits those nearly as near; dense tiles compare
residents with residents and visitors with residents (docs/adr/0005-self-join.md). Pure numerics:
no files, no cluster. `knn_matrix` does everything; the steps are there for the cluster.
"""

from index_build.selfjoin.matrix import NeighbourMatrix, Report, knn_matrix

__all__ = ["NeighbourMatrix", "Report", "knn_matrix"]
