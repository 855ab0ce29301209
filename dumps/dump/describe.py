"""What a dump says about itself: README, provenance, datapackage.json, Croissant.

Owns the words about every file and column, once, for all four. Refuses to read the files.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dumps.dump import names
from dumps.dump.licence import Licence

PARQUET_TYPE = "application/vnd.apache.parquet"
DISTANCES = {
    "l2": "Euclidean distance",
    "cosine": "cosine distance, 1 - cos (0 to 2)",
    "ip": "negative inner product",
}
ROW = ("row", "int32", "position of the recording, 0 to n - 1; what `neighbours` refers to")
ID = ("recording_id", "string", "public id of the recording")
NEIGHBOURS = ("neighbours", "list<int32>", "rows of the nearest recordings, nearest first")
MATRIX = (
    ROW,
    ID,
    NEIGHBOURS,
    ("distances", "list<float32>", "distance to each of `neighbours`, ascending"),
)


@dataclass(frozen=True)
class Facts:
    """Of a dump: what the texts speak of. labels: (name, type) of each label column."""

    name: str
    n: int
    k: int
    space: str
    first_id: str
    labels: tuple[tuple[str, str], ...]
    licence: Licence
    files: tuple[str, ...]

    @property
    def title(self) -> str:
        """One line."""
        return f"The {self.k} nearest neighbours of each of {self.n:,} recordings"


@dataclass(frozen=True)
class FileWords:
    """Media type, meaning and columns (name, type, meaning) of one file."""

    mediatype: str
    meaning: str
    columns: tuple[tuple[str, str, str], ...] = ()


def words(facts: Facts) -> dict[str, FileWords]:
    """What is said of each file of the dump, in the README's order."""
    recordings = (ROW, ID, *((name, kind, "label") for name, kind in facts.labels))
    known = {
        names.HDF5: FileWords(
            "application/x-hdf5",
            "the matrix as HDF5: datasets neighbours int32 [n, k], distances float32 [n, k], "
            "recording_ids [n]",
        ),
        names.PARQUET: FileWords(PARQUET_TYPE, "the matrix, a row per recording", MATRIX),
        names.FLAT: FileWords(
            PARQUET_TYPE,
            "the matrix, a row per pair",
            (
                ID,
                ("rank", "int32", "1 for the nearest"),
                ("neighbour_id", "string", "recording_id of the neighbour"),
                ("distance", "float32", "distance to it"),
            ),
        ),
        names.CSV: FileWords(
            "application/zstd",
            "the matrix as CSV, lists as {a,b,c}; each distance is the shortest decimal of its "
            "float32",
            MATRIX,
        ),
        names.RECORDINGS: FileWords(PARQUET_TYPE, "ids and labels by row", recordings),
        names.RECORDINGS_CSV: FileWords("application/zstd", "ids and labels as CSV", recordings),
        names.SAMPLE: FileWords(
            PARQUET_TYPE,
            "10,000 recordings (all, if there are fewer), evenly spread",
            (*MATRIX, ("neighbour_ids", "list<string>", "recording_id of each of `neighbours`")),
        ),
        names.LICENCE: FileWords("text/plain", "licence"),
        names.PROVENANCE: FileWords(
            "application/json", "versions, configuration, vector set, verification"
        ),
        names.README: FileWords("text/markdown", "this text"),
    }
    return {name: said for name, said in known.items() if name in facts.files}


def readme(facts: Facts) -> str:
    """The README: meanings of files and columns, and queries that run in the dump's folder."""
    rows = [f"| `{name}` | {said.meaning} |" for name, said in words(facts).items()]
    columns = dict.fromkeys(
        column for said in words(facts).values() for column in said.columns if column[2] != "label"
    )
    labels = ", ".join(f"`{name}` ({kind})" for name, kind in facts.labels) or "none"
    parts = [
        f"# {facts.title}\n",
        f"Distance: {DISTANCES[facts.space]}, stored as float32. Each list is sorted by (distance, "
        "row); no recording is its own neighbour; equal recordings are neighbours at distance 0. "
        f"All files hold exactly the same numbers. n = {facts.n:,}, k = {facts.k}.\n",
        "| file | content |\n|---|---|\n" + "\n".join(rows) + "\n",
        "| column | type | meaning |\n|---|---|---|\n"
        + "\n".join(f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in columns)
        + "\n",
        f"Labels (in `{names.RECORDINGS}`): {labels}.\n",
        f"Whole? `sha256sum -c {names.SUMS}`, or `nearfield dump --check FOLDER`, which looks "
        "into the files too.\n",
        *_queries(facts),
    ]
    return "\n".join(parts)


def _queries(facts: Facts) -> list[str]:
    """Three questions in DuckDB's SQL, and one line each for the other formats."""
    table = names.PARQUET if names.PARQUET in facts.files else names.SAMPLE
    own = facts.first_id.replace("'", "''")
    parts = [
        f"## Three questions (DuckDB, in this folder{_small(table)})\n",
        "The nearest ten of a recording, with their labels:\n",
        _fenced(
            "sql",
            _NEAREST.format(table=table, recordings=names.RECORDINGS, own=own),
        ),
        "The recordings that most others have among their neighbours:\n",
        _fenced(
            "sql",
            _HUBS.format(table=table, recordings=names.RECORDINGS),
        ),
        "Share of recordings whose nearest neighbour names them too:\n",
        _fenced(
            "sql",
            _MUTUAL.format(table=table),
        ),
        "## Other programs\n",
    ]
    if names.HDF5 in facts.files:
        parts += [
            "One row of the HDF5 file, without reading the file:\n",
            _fenced(
                "python",
                "import h5py\n\n"
                f'with h5py.File("{names.HDF5}") as file:\n'
                '    print(file["neighbours"][0], file["distances"][0], file["recording_ids"][0])',
            ),
        ]
    if names.CSV in facts.files:
        parts += [
            "Postgres:\n",
            _fenced(
                "postgresql",
                "CREATE TABLE matrix (row int PRIMARY KEY, recording_id text UNIQUE,\n"
                "                     neighbours int[], distances real[]);\n"
                "COPY matrix FROM STDIN (FORMAT csv, HEADER);",
            ),
            f"with `zstd -dc {names.CSV}` as its input.\n",
        ]
    return parts


def _small(table: str) -> str:
    return ", of the sample" if table == names.SAMPLE else ""


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


def datapackage(facts: Facts, sums: Mapping[str, tuple[int, str]], created: str) -> str:
    """The Data Package descriptor; sums: (bytes, hex SHA-256) of each described file."""
    resources = [
        {
            "name": name.replace(".", "-").lower(),
            "type": "file",
            "path": name,
            "format": name.rpartition(".")[2].lower(),
            "mediatype": said.mediatype,
            "description": said.meaning,
            "bytes": sums[name][0],
            "hash": f"sha256:{sums[name][1]}",
        }
        for name, said in words(facts).items()
    ]
    licence = facts.licence
    package = {
        "name": facts.name,
        "title": facts.title,
        "created": created,
        "resources": resources,
    }
    if licence.name:
        url = {"path": licence.url} if licence.url else {"path": names.LICENCE}
        package["licenses"] = [{"name": _slug(licence.name), **url}]
    return _json(package)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-._" else "-" for c in name)


def croissant(facts: Facts, sums: Mapping[str, tuple[int, str]], created: str) -> str:
    """Croissant 1.0 metadata: every described file, and the columns of the Parquet ones."""
    described = words(facts)
    licence = facts.licence
    return _json(
        {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "name": facts.name,
            "description": f"{facts.title}. Distance: {DISTANCES[facts.space]}.",
            "conformsTo": "http://mlcommons.org/croissant/1.0",
            "datePublished": created,
            "version": "1.0.0",
            "license": licence.url or licence.name or "none stated",
            "distribution": [
                {
                    "@type": "cr:FileObject",
                    "@id": name,
                    "name": name,
                    "description": said.meaning,
                    "contentUrl": name,
                    "contentSize": f"{sums[name][0]} B",
                    "encodingFormat": _CROISSANT_MEDIA.get(said.mediatype, said.mediatype),
                    "sha256": sums[name][1],
                }
                for name, said in described.items()
            ],
            "recordSet": [
                {
                    "@type": "cr:RecordSet",
                    "@id": _stem(name),
                    "name": _stem(name),
                    "description": said.meaning,
                    "field": _fields(name, said.columns),
                }
                for name, said in described.items()
                if said.mediatype == PARQUET_TYPE
            ],
        }
    )


def _stem(name: str) -> str:
    return name.partition(".")[0]


def _fields(name: str, columns: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    fields = []
    for column, kind, meaning in columns:
        element = kind.removeprefix("list<").removeprefix("element: ").removesuffix(">")
        fields.append(
            {
                "@type": "cr:Field",
                "@id": f"{_stem(name)}/{column}",
                "name": column,
                "description": meaning,
                "dataType": _CROISSANT_TYPES.get(element, "sc:Text"),
                **({"repeated": True} if kind.startswith("list<") else {}),
                "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
            }
        )
    return fields


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


_NEAREST = """SELECT r.*, distance FROM (
  SELECT unnest(neighbours) AS neighbour, unnest(distances) AS distance
  FROM '{table}' WHERE recording_id = '{own}')
JOIN '{recordings}' r ON r."row" = neighbour ORDER BY distance, neighbour LIMIT 10;"""
_HUBS = """SELECT r.recording_id, named FROM (
  SELECT neighbour, count(*) AS named
  FROM (SELECT unnest(neighbours) AS neighbour FROM '{table}')
  GROUP BY neighbour ORDER BY named DESC, neighbour LIMIT 10)
JOIN '{recordings}' r ON r."row" = neighbour ORDER BY named DESC, neighbour;"""
_MUTUAL = """SELECT avg(list_contains(b.neighbours, a."row")::int) AS mutual
FROM '{table}' a JOIN '{table}' b ON b."row" = a.neighbours[1];"""
_CROISSANT_TYPES = {
    **dict.fromkeys(("int8", "int16", "int32", "int64"), "sc:Integer"),
    **dict.fromkeys(("uint8", "uint16", "uint32", "uint64"), "sc:Integer"),
    **dict.fromkeys(("float", "float32", "double"), "sc:Float"),
    "bool": "sc:Boolean",
}
_CROISSANT_MEDIA = {PARQUET_TYPE: "application/x-parquet"}
"""Names that Croissant's own tool goes by."""
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
