"""The run that an update extends: nothing of it is read before its checksums were compared.

Owns opening it. Refuses what an update does with it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from index_build.update.base import Base
from nearfield.errors import MissingFile
from nearfield.hdf5 import RowReader
from nearfield.machine import available_cores
from nearfield.manifest import Manifest
from nearfield.run import Run
from nearfield.vectorset import VectorSet, open_vector_set

METHOD_EXACT = "exact"


def old_vectors(run: Run) -> VectorSet:
    """Its vector set, as far as its manifest tells; raises `MissingFile` for another."""
    found = open_vector_set(Path(run.config.vectors), verify=False)
    if found.fingerprint != run.config.vectors_fingerprint:
        raise MissingFile(
            f"{found.path} holds another vector set than {run.path} was made from: put it back"
        )
    return found


@dataclass(frozen=True)
class OldRun:
    """The run that is extended and its vector set, all files compared with their checksums."""

    run: Run
    vectors: VectorSet
    matrix: Manifest

    @property
    def sha256(self) -> str:
        """Identifies its lists."""
        return self.matrix.files[self.run.matrix.name].sha256

    @property
    def built_recall(self) -> float:
        """As the build estimated it, whatever the samples of updates since then found."""
        facts = self.matrix.facts
        known = facts.get("recall_built", facts.get("recall_estimate", self.run.config.recall))
        return float(known)

    @property
    def cells(self) -> Path:
        """Where its cells are kept."""
        return self.run.folder / "cells"

    @contextmanager
    def opened(self) -> Iterator[Base]:
        """Its lists, to be read."""
        with (
            h5py.File(self.run.matrix, "r") as file,
            closing(RowReader(file["neighbours"])) as neighbours,
            closing(RowReader(file["distances"])) as distances,
        ):
            yield Base(
                config=self.run.config,
                vectors=self.vectors,
                neighbours=neighbours,
                distances=distances,
                exact=self.matrix.facts.get("method") == METHOD_EXACT,
                estimate=self.built_recall,
                threads=available_cores(),
            )


def checked_run(steps: Run, run: Run) -> OldRun:
    """Nothing is read before its checksum was compared: lists are read without HDF5's help."""
    with steps.step("check base"), ThreadPoolExecutor(2) as pool:
        there = pool.submit(open_vector_set, Path(run.config.vectors))
        manifest = run.finished_matrix()
        there.result()
        return OldRun(run, old_vectors(run), manifest)
