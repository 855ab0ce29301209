"""A module that says something when it is imported, as NMSLIB does."""

import os

from tests.benchmark.broken_methods import Graphs

print("a notice about instructions", flush=True)
os.write(1, b"and one from C\n")
__all__ = ["Graphs"]
