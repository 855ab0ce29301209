"""The k-nearest-neighbour matrix of millions of recordings.

The stages as functions are in `nearfield.api`, the command line in `nearfield.cli`.
"""

__version__ = "0.1.0"
