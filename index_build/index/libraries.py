"""The libraries as an index needs them: which, for which space, built, loaded from a file.

Owns the choice of `auto`; each library's parameters live in benchmark/methods.
"""

from pathlib import Path

from benchmark.methods import METHODS, Index, method_named
from index_build.index.layout import IndexConfig
from nearfield.errors import DamagedArtefact, UsageError
from nearfield.space import Float32s, SpaceName

AUTO = "auto"
CHOSEN = "faiss-hnsw"
LINK_BYTES = {"faiss-hnsw": 160, "nmslib-hnsw": 400, "hnswlib": 160, "annoy": 900, "faiss-ivf": 16}
"""Per vector, beside the vector itself, that a library's file takes; about."""


def chosen_method(method: str) -> tuple[str, str]:
    """The method and why it; raises `UsageError` for an unknown one."""
    if method != AUTO:
        return method_named(method).name, "as asked"
    return CHOSEN, "the fastest measured in batches among libraries that are always installed"


def check_method(method: str, space: SpaceName) -> None:
    """Raise `UsageError` when the method doesn't know the space."""
    if space not in METHODS[method].spaces:
        raise UsageError(
            f"{method} has no space {space}; it has {', '.join(sorted(METHODS[method].spaces))}"
        )


def memory_factor(method: str, d: int) -> int:
    """Bytes per vector of the library's file, about."""
    return 4 * d + LINK_BYTES.get(method, 400)


def build_library(vectors: Float32s, config: IndexConfig, *, threads: int) -> Index:
    """Index prepared vectors float32 [m, d]."""
    method = method_named(config.method)
    return method.build(vectors, config.space, threads=threads, seed=config.seed)


def load_library(folder: Path, config: IndexConfig, *, threads: int) -> Index:
    """Open what a library saved, mapped where it can.

    The checksums must have matched before (`layout.checked_shard`).
    """
    method = METHODS[config.method]
    index = method.load(folder, threads=threads, mapped=method.maps)
    if (index.holds.space, index.holds.d) != (config.space, config.d):
        raise DamagedArtefact(
            f"{folder} holds vectors of {index.holds.d} numbers under {index.holds.space}, the"
            f" index has {config.d} under {config.space}: make it anew"
        )
    return index
