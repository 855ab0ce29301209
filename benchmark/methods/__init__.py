"""The methods by name. Owns the list; each library has a file of its own beside this one."""

from benchmark.methods.annoy_trees import Annoy
from benchmark.methods.base import Asked, Index, Method, neighbours_of_all
from benchmark.methods.faiss_hnsw import FaissHnsw
from benchmark.methods.faiss_ivf import FaissIvf
from benchmark.methods.nmslib_hnsw import NmslibHnsw
from nearfield.errors import UsageError

__all__ = ["METHODS", "Asked", "Index", "Method", "method_named", "neighbours_of_all"]

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (FaissHnsw, FaissIvf, Annoy, NmslibHnsw)
}


def method_named(name: str) -> Method:
    """The method of that name with its default parameters; raises `UsageError` for any other."""
    try:
        return METHODS[name]()
    except KeyError:
        raise UsageError(f"expected a method out of {', '.join(METHODS)}; got {name!r}") from None
