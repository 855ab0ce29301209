"""The methods by name. Owns the list; each library has a file of its own beside this one.

A method that lives elsewhere is named by its import path, `package.module:ClassName`.
"""

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import Any

import msgspec

from benchmark.methods.all_rows import finished_lists, neighbours_of_all
from benchmark.methods.annoy_trees import Annoy
from benchmark.methods.base import Asked, Holds, Index, Method, Workload, tie_aware_recall
from benchmark.methods.exact_search import Exact
from benchmark.methods.faiss_flat import FaissFlat
from benchmark.methods.faiss_hnsw import FaissHnsw
from benchmark.methods.faiss_ivf import FaissIvf
from benchmark.methods.faiss_ivfpq import FaissIvfPq
from benchmark.methods.faiss_nndescent import FaissNnDescent
from benchmark.methods.hnswlib_graph import Hnswlib
from benchmark.methods.nmslib_graphs import NmslibHnsw, NmslibSwGraph
from benchmark.methods.pynndescent_graph import PyNnDescent
from benchmark.methods.sklearn_ball_tree import BallTree
from nearfield.errors import UsageError

__all__ = [
    "METHODS",
    "Asked",
    "Holds",
    "Index",
    "Method",
    "Workload",
    "finished_lists",
    "method_class",
    "method_named",
    "neighbours_of_all",
    "tie_aware_recall",
]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        *(FaissHnsw, FaissIvf, FaissIvfPq, FaissFlat, FaissNnDescent, Annoy),
        *(NmslibHnsw, NmslibSwGraph, Hnswlib, PyNnDescent, BallTree, Exact),
    )
}


def method_class(name: str) -> type[Method]:
    """The method of that name or import path; raises `UsageError` for any other."""
    if ":" in name:
        return _imported(name)
    try:
        return METHODS[name]
    except KeyError:
        raise UsageError(
            f"expected a method out of {', '.join(METHODS)}, or an import path "
            f"package.module:ClassName; got {name!r}"
        ) from None


def method_named(name: str, parameters: Mapping[str, Any] | None = None) -> Method:
    """The method of that name or import path with its build parameters, defaults for the rest.

    Raises `UsageError` for an unknown method or parameter, or a value out of range.
    """
    method, given = method_class(name), dict(parameters or {})
    known = [field.name for field in fields(method)]
    for parameter in given:
        if parameter not in known:
            raise UsageError(
                f"{method.name} has no parameter {parameter!r}; it has {', '.join(known) or 'none'}"
            )
    try:
        return msgspec.convert(given, type=method)
    except msgspec.ValidationError as error:
        raise UsageError(f"a parameter of {method.name} can't be used: {error}") from error


def _imported(path: str) -> type[Method]:
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"expected a method at the import path {path!r}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise UsageError(f"expected a subclass of Method at {path!r}; got {found!r}")
    return found
