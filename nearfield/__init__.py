"""The k-nearest-neighbour matrix of millions of recordings.

Owns the public names: each is a stage of the job and has a command of the same name.
The stages themselves are imported on first use, so that `import nearfield` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nearfield.api import build, ingest, load, query, status, verify

__all__ = ["__version__", "build", "ingest", "load", "query", "status", "verify"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("nearfield.api"), name)
    raise AttributeError(f"module 'nearfield' has no attribute {name!r}")
