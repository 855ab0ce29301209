"""What a user can choose about ingest, as one frozen value."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from nearfield.space import Float32s
from nearfield.vectorset import Geometry


@dataclass(frozen=True)
class DocumentOptions:
    """Choices for AcousticBrainz documents.

    submissions: which of a recording's submissions stands for it: the `lowest` offset, or the
    element-wise `median`; None: the lowest, or as in the set being extended. first_cepstral: 0
    keeps the loudness coefficient (as the server did), 1 drops it (as the 2018 thesis did).
    """

    submissions: Literal["lowest", "median"] | None = None
    first_cepstral: Literal[0, 1] = 0


@dataclass(frozen=True)
class TableOptions:
    """Choices for CSV, Parquet and arrays. Empty `columns` means all numeric ones, empty `labels`
    all columns of text. `scale` None: `standard` for columns of a table, `none` for embeddings.
    `header_rows` None: found out (0 or 1); several are joined to one name with underscores.
    """

    id_column: str | None = None
    columns: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    scale: Literal["standard", "robust", "none"] | None = None
    pca: int | None = None
    delimiter: str | None = None
    header_rows: int | None = None


@dataclass(frozen=True)
class IngestOptions:
    """All choices. `space`: for documents a metric (`bpm`), a combination (`combined`, `timbre`,
    `lowlevel`) or weights (`mfccs=2,bpm=1`); for tables and arrays `l2`, `cosine` or `ip`.
    `ids`: a file with one id per row, for tables and arrays. `labels_from`: a table with further
    labels for any kind of source, joined by recording id. `zero` None: zero vectors are dropped
    under cosine, kept otherwise.
    `base`: geometry of the vector set being extended, whose statistics are reused.
    `max_rejected`: the share of items that may be rejected before ingest stops.
    """

    space: str | None = None
    ids: Path | None = None
    labels_from: Path | None = None
    zero: Literal["drop", "keep"] | None = None
    max_rejected: float = 0.05
    workers: int = 1
    base: Geometry | None = None
    documents: DocumentOptions = DocumentOptions()
    tables: TableOptions = TableOptions()


@dataclass(frozen=True)
class Gathered:
    """What a reader hands to ingest: n vectors, their recordings in the same order, geometry."""

    vectors: Float32s
    recordings: pa.Table
    geometry: Geometry
    facts: dict[str, object]
