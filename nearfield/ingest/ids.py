"""Recording ids: from a column, from a file, or row numbers.

Owns what an id may be (text, or int64 written canonically), which of several equal ids counts (the
first), and which recordings of a set new ones are. Refuses to read tables:
`nearfield.ingest.tables` does.
"""

from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.compressed import opened
from nearfield.vectorset import VectorSet, wide

ROW_NUMBERS = "row numbers"
"""What a set without ids says of them in its manifest."""
ID_NAMES = (
    "recording_id",
    "id",
    "mbid",
    "recording_mbid",
    "track_id",
    "track",
    "item_id",
    "song_id",
    "gid",
    "uuid",
)


def likely_id_column(names: list[str]) -> str | None:
    """The column with the best-known id name, letter case aside, or None."""
    lowered = {name.lower(): name for name in reversed(names)}
    return next((lowered[known] for known in ID_NAMES if known in lowered), None)


def row_numbers(n: int) -> pa.Array:
    """The ids of vectors that come without any: int64 0..n-1."""
    return pa.array(np.arange(n, dtype=np.int64))


def canonical_text_ids(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids that were text: int64 when every one is a number as Python prints it, else unchanged.

    So `17` becomes an integer while `000017` and a UUID stay text; empty text becomes null.
    """
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    try:
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        return texts
    same = pc.all(pc.equal(numbers.cast(pa.string()), texts)).as_py()
    return numbers if same else texts


def ids_beside(
    known: VectorSet, ids: pa.ChunkedArray, *, numbered: bool, where: str
) -> pa.ChunkedArray:
    """Ids of new recordings as the set has its own: equal ones are the same recording.

    numbered: they are row numbers, and run on from the set's; where: what has them. Raises
    `UsageError` where only one of both has ids, and as `ids_in_form` does.
    """
    if numbered != (known.manifest.facts.get("ids") == ROW_NUMBERS):
        raise UsageError(
            f"the recordings of {where if numbered else known.path} have row numbers in place of"
            " ids, the others have ids: which are the same can't be told. Give ids to both"
        )
    if numbered:
        # numbers of one source mean nothing in another: all are new
        return pc.add(ids, pc.max(known.ids).as_py() + 1)
    return ids_in_form(ids, known.ids)


def rows_of(known: pa.ChunkedArray, ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """Where each of the ids is among the known ones, int64 [m]; -1 where it isn't."""
    found = pc.index_in(wide(ids), value_set=wide(known))
    return np.array(found.fill_null(-1).to_numpy(), dtype=np.int64)


def rows_beside(known: pa.ChunkedArray, ids: pa.ChunkedArray) -> NDArray[np.int64]:
    """The row of each recording in a set that is extended, int64 [m]: its own, or after all."""
    rows = rows_of(known, ids)
    fresh = np.flatnonzero(rows < 0)
    rows[fresh] = len(known) + np.arange(len(fresh))
    return rows


def ids_in_form(ids: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray:
    """`ids` as the type that the `known` ids have, so that both can be compared and kept in a set.

    Numbers become text as they are printed: that is what they were, since text is read as numbers
    only where it is printed so (`canonical_text_ids`). Text becomes numbers where all of it is
    printed so. Raises `UsageError` where it isn't, and where a number is one of the known texts
    but for its zeros in front: those were lost before it came here.
    """
    if ids.type == known.type:
        return ids
    texts = ids.cast(pa.string())
    if known.type == pa.string():
        _refuse_lost_zeros(texts, known)
        return texts
    numbers = canonical_text_ids(texts)
    if numbers.type == known.type:
        return numbers
    raise UsageError(
        f"the known ids are numbers (such as {known[0].as_py()!r}), of the new ones"
        f" {_first_text(texts)!r} isn't one as it is printed: give ids of the same form"
    )


def _refuse_lost_zeros(texts: pa.ChunkedArray, known: pa.ChunkedArray) -> None:
    padded = known.filter(pc.match_substring_regex(known, "^0[0-9]+$"))
    found = pc.index_in(texts, value_set=pc.utf8_ltrim(padded, "0").combine_chunks())
    found = found.filter(pa.array(rows_of(known, texts) < 0))
    found = found.drop_null()
    if len(found):
        text = padded[found[0].as_py()].as_py()
        raise UsageError(
            f"{len(found):,} of the new ids are numbers where the known ones have zeros in front"
            f" ({int(text)} and {text!r}): write them as text, zeros and all"
        )


def _first_text(texts: pa.ChunkedArray) -> str | None:
    """The first that isn't a number as Python prints it."""
    whole = pc.match_substring_regex(texts, "^(0|-?[1-9][0-9]*)$")
    return next(iter(texts.filter(pc.invert(whole)).to_pylist()), None)


def typed_ids(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Ids out of a typed column as string or int64; UUIDs as text.

    Raises `InputRejected` for other types and for numbers that aren't whole.
    """
    if isinstance(column.type, pa.ExtensionType):
        column = pa.chunked_array(
            [chunk.storage for chunk in column.chunks], column.type.storage_type
        )
    kind = column.type
    if pa.types.is_dictionary(kind):
        return typed_ids(column.cast(kind.value_type), where)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        texts = [None if raw is None else str(UUID(bytes=raw)) for raw in column.to_pylist()]
        return pa.chunked_array([texts], pa.string())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputRejected(f"ids in {where} aren't whole int64 numbers: {error}") from error
    raise InputRejected(f"expected ids of text or whole numbers in {where}; found {kind}")


def array_ids(values: NDArray[np.generic], where: str) -> pa.ChunkedArray:
    """Ids out of a numpy array [n] of integers, text or bytes."""
    if values.ndim != 1 or values.dtype.kind not in "iuUS":
        raise InputRejected(
            f"expected ids as a one-dimensional array of integers or text in {where}; "
            f"found {values.dtype} {values.shape}"
        )
    if values.dtype.kind == "S":
        values = np.char.decode(values.astype(np.bytes_), "utf-8")
    return typed_ids(pa.chunked_array([pa.array(values)]), where)


def line_ids(path: Path) -> pa.ChunkedArray:
    """Ids out of a text file, one a line, compressed or not."""
    with opened(path) as stream:
        content = bytes(stream.read())
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputRejected(
            f"expected ids as UTF-8 text, one a line, in {path}: {error}"
        ) from error
    return canonical_text_ids(pa.chunked_array([[line.strip() for line in lines]], pa.string()))


def first_occurrences(ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Mask [n]: True where an id comes for the first time. Cost O(n)."""
    # codes count up in order of appearance: an id is new where its code tops all before it
    encoded = wide(ids).dictionary_encode()
    codes = np.concatenate([np.empty(0, np.int64), *(_codes(chunk) for chunk in encoded.chunks)])
    highest_before = np.concatenate([[-1], np.maximum.accumulate(codes)[:-1]])[: len(codes)]
    return codes > highest_before


def _codes(chunk: pa.DictionaryArray) -> NDArray[np.int64]:
    return chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
