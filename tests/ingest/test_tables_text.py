"""CSV in all the forms that it comes in: the same rows come out."""

import bz2
import gzip
import lzma
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nearfield.errors import InputRejected, UsageError
from nearfield.ingest.numbers import numbers_of
from tests.ingest.table_samples import ingested, rejects_of, write_text

ROWS = [("a1", "1.5", "x"), ("a2", "-2e1", "y, z"), ("a3", "0", 'say "hi"')]
VALUES = [[1.5], [-20.0], [0.0]]


def _text(delimiter: str = ",", newline: str = "\n", start: str = "") -> str:
    lines = ["recording_id,bpm,title".replace(",", delimiter)]
    for recording_id, bpm, title in ROWS:
        quoted = '"' + title.replace('"', '""') + '"'
        lines.append(delimiter.join((recording_id, bpm, quoted)))
    return start + newline.join(lines) + newline


def _check(vector_set) -> None:
    assert vector_set.vectors.tolist() == VALUES
    assert vector_set.recordings.to_pylist() == [
        {"recording_id": recording_id, "title": title} for recording_id, _, title in ROWS
    ]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " "])
def test_the_delimiter_is_found_out(tmp_path: Path, delimiter: str) -> None:
    _check(ingested(write_text(tmp_path / "t.txt", _text(delimiter))))


def test_a_delimiter_can_be_given(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.txt", _text("~"))
    _check(ingested(path, delimiter="~"))
    with pytest.raises(UsageError, match="one character"):
        ingested(path, delimiter="~~")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark_make_no_difference(
    tmp_path: Path, newline: str, start: str
) -> None:
    _check(ingested(write_text(tmp_path / "t.csv", _text(newline=newline, start=start))))


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", zstandard.compress),
    ],
)
class TestCompressed:
    def test_reads_like_the_plain_file(self, tmp_path: Path, suffix: str, compress) -> None:
        path = tmp_path / f"t.csv{suffix}"
        path.write_bytes(compress(_text().encode()))
        _check(ingested(path))

    def test_cut_off_data_is_refused_by_name(self, tmp_path: Path, suffix: str, compress) -> None:
        path = tmp_path / f"t.csv{suffix}"
        text = "id,x\n" + "".join(f"{i},{i * i}\n" for i in range(200_000))
        path.write_bytes(compress(text.encode())[:-100])
        with pytest.raises(InputRejected, match=rf"t\.csv\{suffix} can't be decompressed"):
            ingested(path)
        assert not (tmp_path / "vectors" / "manifest.json").exists()

    def test_data_of_another_kind_is_refused(self, tmp_path: Path, suffix: str, compress) -> None:
        path = tmp_path / f"t.csv{suffix}"
        path.write_bytes(b"id,x\n1,2\n" * 20)
        with pytest.raises(InputRejected, match="can't be decompressed"):
            ingested(path)


def test_a_newline_within_quotes_is_part_of_the_value(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", 'id,x,title\na,1,"two\nlines"\nb,2,one\n')
    assert ingested(path).recordings["title"].to_pylist() == ["two\nlines", "one"]


def test_lines_with_too_many_or_few_fields_are_rejected_by_line(tmp_path: Path) -> None:
    path = write_text(tmp_path / "t.csv", "id,x,y\na,1,2\nb,1\nc,3,4\nd,1,2,3\ne,5,6\n")
    vector_set = ingested(path)
    assert vector_set.vectors.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert [(row["item"], row["reason"]) for row in rejects_of(vector_set)] == [
        ("line 3", "wrong number of columns"),
        ("line 5", "wrong number of columns"),
    ]


def test_line_numbers_stay_right_over_many_blocks(tmp_path: Path) -> None:
    wrong = {5, 60_000, 149_999}
    lines = [f"r{i},{i}" + (",9" if i in wrong else "") + " " * 90 for i in range(150_000)]
    lines[140_000] = "r140000,text"
    path = write_text(tmp_path / "t.csv", "id,x\n" + "\n".join(lines) + "\n")
    places = {row["detail"].split(",")[0] for row in rejects_of(ingested(path))}
    items = {row["item"] for row in rejects_of(ingested(path))}
    assert {f"line {i + 2}" for i in wrong} <= items
    assert "line 140002" in places


def test_a_quote_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    rows = "".join(f"{i},{i},t\n" for i in range(500))
    last = write_text(tmp_path / "last.csv", "id,x,title\n" + rows + 'a,1,"open\n' + rows)
    middle = write_text(tmp_path / "middle.csv", "id,x,title\n" + rows + 'a,"open,t\n' + rows)
    for path in (last, middle):
        with pytest.raises(InputRejected, match="never closed"):
            ingested(path)


def test_text_that_is_not_utf8_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("id,x,title\n1,2,Motörhead\n".encode("latin-1"))
    with pytest.raises(InputRejected, match="UTF-8"):
        ingested(path)


@pytest.mark.parametrize("content", ["", "\n\n", "id,x\n"])
def test_a_table_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputRejected, match=r"empty|nothing else"):
        ingested(write_text(tmp_path / "t.csv", content))


def test_a_table_without_header_keeps_its_first_row(tmp_path: Path) -> None:
    vector_set = ingested(write_text(tmp_path / "t.tsv", "17\t0.5\t2\n18\t1.5\t3\n"))
    assert vector_set.ids.to_pylist() == [17, 18]
    assert vector_set.vectors.tolist() == [[0.5, 2], [1.5, 3]]


def test_several_header_rows_are_refused_unless_said_how_many(tmp_path: Path) -> None:
    text = "feature,mfcc,mfcc\nstatistic,mean,std\ntrack_id,,\n7,1,2\n8,3,4\n"
    path = write_text(tmp_path / "t.csv", text)
    with pytest.raises(InputRejected, match="--header-rows"):
        ingested(path)
    vector_set = ingested(path, header_rows=3)
    assert vector_set.ids.to_pylist() == [7, 8]
    assert vector_set.geometry.statistics["numbers"] == [["mfcc_mean", 0], ["mfcc_std", 0]]


@given(st.floats(width=64))
@settings(max_examples=200)
def test_numbers_in_text_read_as_python_reads_them(value: float) -> None:
    for text in (repr(value), f" {value:+.17g} ", f"{value:E}"):
        # the second element makes the slow path that sorts out text take part too
        found = numbers_of(pa.chunked_array([[text, "text"]]), 0)
        np.testing.assert_equal(found.values[0, 0], float(text))
        assert found.wrong.tolist() == [False, True]


def _is_nan(text: str) -> bool:
    """Whether a text spells "not a number", with or without a payload, as the C library has it."""
    try:
        return math.isnan(float(re.sub(r"\(\w*\)$", "", text.strip(), flags=re.ASCII)))
    except ValueError:
        return False


@given(st.text(max_size=8))
@example("NAN0")
@example("nan(ind)")
@settings(max_examples=300)
def test_a_text_is_a_number_missing_or_wrong_and_only_one_of_them(text: str) -> None:
    found = numbers_of(pa.chunked_array([[text, "oops"]]), 0)
    number = not np.isnan(found.values[0, 0]) or _is_nan(text)
    assert int(found.missing[0]) + int(found.wrong[0]) + int(number) == 1


@pytest.mark.parametrize("text", ["nan", "-NaN", "nan(ind)", "-nan(0x1)", "+inf", "Infinity"])
def test_a_number_is_one_whatever_else_the_column_holds(text: str) -> None:
    for others in (["1"], ["oops"]):
        found = numbers_of(pa.chunked_array([[text, *others]]), 0)
        assert not found.wrong[0]
        assert not found.missing[0]


@pytest.mark.parametrize("column", ["title", "note"])
def test_a_character_may_lie_across_the_end_of_the_first_block(tmp_path, monkeypatch, column):
    # two bytes, of which the first is the block's last
    monkeypatch.setattr("nearfield.ingest.csv_text.BLOCK_BYTES", 4_096)
    rows = ["id,x,title,note\n"]
    while sum(map(len, rows)) < 3_900:
        rows.append(f"a{len(rows)},1,plain,plain\n")
    begun = f"last,1,{'' if column == 'title' else 'plain,'}"
    filling = "y" * (4_095 - sum(map(len, rows)) - len(begun))
    rows.append(f"{begun}{filling}é{',plain' if column == 'title' else ''}\n")
    text = "".join(rows)
    assert len(text.encode()[:4_096].decode(errors="replace")) < len(text)
    vector_set = ingested(write_text(tmp_path / "t.csv", text))
    assert vector_set.n == len(rows) - 1
    assert vector_set.recordings[column][-1].as_py() == f"{filling}é"
