"""The run that an update extends, as the update needs it: opened and checked by the caller."""

from dataclasses import dataclass
from typing import Any

from nearfield.run import RunConfig
from nearfield.vectorset import VectorSet


@dataclass(frozen=True)
class Base:
    """The run that is extended: neighbours, distances [n, columns], sliceable; `estimate`: recall.

    `exact`: every pair was compared when it was built, and will be in the update.
    """

    config: RunConfig
    vectors: VectorSet
    neighbours: Any
    distances: Any
    exact: bool
    estimate: float
    threads: int

    @property
    def n(self) -> int:
        """Rows before."""
        return self.config.n
