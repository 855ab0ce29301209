"""The entry point: which reader, what stands in the way, and what is left after a fault."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nearfield.errors import DiskFull, InputRejected, MissingFile, RunLocked, UsageError
from nearfield.ingest import ingest
from nearfield.ingest.options import DocumentOptions, IngestOptions, TableOptions
from nearfield.lock import locked
from nearfield.vectorset import open_vector_set
from tests.ingest.table_samples import options, write_text

FINISHED = {"vectors.npy", "recordings.parquet", "space.json", "manifest.json", "rejects.csv"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_text(tmp_path / "t.csv", "id,x,title\na,1,A\nb,3,B\n")


def _names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.glob("*")}


def _big_array(folder: Path, rows: int = 60_000) -> Path:
    np.save(folder / "big.npy", np.random.default_rng(0).normal(size=(rows, 16)))
    return folder / "big.npy"


class TestDispatch:
    def test_the_report_says_what_was_made(self, table: Path, tmp_path: Path) -> None:
        write_text(table, "id,x,title\na,1,A\nb,3,B\nc,?,C\n")
        report = ingest([table], tmp_path / "v", options())
        vector_set = open_vector_set(tmp_path / "v")
        assert (report.n, report.d, report.space) == (2, 1, "l2")
        assert report.rejected == {"not a number": 1}
        assert report.fingerprint == vector_set.fingerprint
        assert report.rejects_file.read_text().count("not a number") == 1
        assert report.facts["rows_read"] == 3
        assert vector_set.manifest.facts["rejected"] == report.rejected
        assert _names(tmp_path / "v") == FINISHED | {".lock"}

    def test_paths_may_be_text_and_a_single_source_needs_no_list(
        self, table: Path, tmp_path: Path
    ) -> None:
        assert ingest(str(table), str(tmp_path / "v")).n == 2

    def test_a_wrong_path_is_named_and_nothing_is_made(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFile, match=r"nowhere\.csv"):
            ingest([tmp_path / "nowhere.csv"], tmp_path / "v")
        assert not (tmp_path / "v").exists()

    @pytest.mark.parametrize("name", ["t.xlsx", "t", "t.parquet.gz", "x.npz.zst", "x.h5.gz"])
    def test_an_unknown_format_lists_the_known_ones(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match=r"don't know how to read.*\.parquet.*\.npy"):
            ingest([write_text(tmp_path / name, "x")], tmp_path / "v")

    def test_an_empty_folder_is_no_source(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="don't know how to read"):
            ingest([tmp_path / "empty"], tmp_path / "v")

    def test_no_source_at_all_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="at least one source"):
            ingest([], tmp_path / "v")

    def test_kinds_are_not_mixed(self, table: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"one kind.*t\.csv \(table\)"):
            ingest([table, _big_array(tmp_path, 5)], tmp_path / "v")

    def test_a_document_goes_to_the_reader_of_documents(self, tmp_path: Path) -> None:
        document = write_text(tmp_path / "0dad432b-16cc-4bf0-8961-fd31d124b01b-0.json", "{}")
        with pytest.raises(InputRejected, match="at least one usable recording"):
            ingest([document], tmp_path / "v")

    @pytest.mark.parametrize(
        ("choice", "flag"),
        [
            (IngestOptions(ids=Path("ids.txt")), "--ids"),
            (IngestOptions(tables=TableOptions(pca=3)), "--pca"),
            (IngestOptions(tables=TableOptions(header_rows=3)), "--header-rows"),
        ],
    )
    def test_choices_for_tables_are_refused_for_documents(
        self, tmp_path: Path, choice: IngestOptions, flag: str
    ) -> None:
        document = write_text(tmp_path / "d.json", "{}")
        with pytest.raises(UsageError, match=f"{flag} means nothing for documents"):
            ingest([document], tmp_path / "v", choice)

    def test_choices_for_documents_are_refused_for_tables(
        self, table: Path, tmp_path: Path
    ) -> None:
        choice = IngestOptions(documents=DocumentOptions(first_cepstral=1))
        with pytest.raises(UsageError, match="means nothing for table"):
            ingest([table], tmp_path / "v", choice)

    @pytest.mark.parametrize("choice", [{"space": "bpm"}, {"max_rejected": 1.5}])
    def test_impossible_choices_are_refused(
        self, table: Path, tmp_path: Path, choice: dict
    ) -> None:
        with pytest.raises(UsageError, match="expected"):
            ingest([table], tmp_path / "v", options(**choice))


class TestOut:
    def test_another_file_or_folder_is_never_written_into(
        self, table: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(UsageError, match=r"t\.csv is a file"):
            ingest([table], table)
        with pytest.raises(UsageError, match="isn't a vector set"):
            ingest([table], tmp_path)
        assert not (tmp_path / ".lock").exists()

    def test_an_older_vector_set_is_replaced_as_a_whole(self, table: Path, tmp_path: Path) -> None:
        ingest([table], tmp_path / "v")
        reader = open_vector_set(tmp_path / "v")
        before = reader.vectors.copy()
        write_text(table, "id,x\nc,5\nd,6\ne,9\n")
        assert ingest([table], tmp_path / "v").n == 3
        np.testing.assert_array_equal(reader.vectors, before)
        assert open_vector_set(tmp_path / "v").ids.to_pylist() == ["c", "d", "e"]

    def test_a_failed_ingest_leaves_the_older_vector_set_as_it_was(
        self, table: Path, tmp_path: Path
    ) -> None:
        first = ingest([table], tmp_path / "v")
        write_text(table, "id,x\nc,?\nd,6\n")
        with pytest.raises(InputRejected):
            ingest([table], tmp_path / "v")
        assert open_vector_set(tmp_path / "v").fingerprint == first.fingerprint
        assert _names(tmp_path / "v") == FINISHED | {".lock"}

    def test_two_at_once_are_refused(self, table: Path, tmp_path: Path) -> None:
        with locked(tmp_path / "v"), pytest.raises(RunLocked, match=f"pid {os.getpid()}"):
            ingest([table], tmp_path / "v")
        assert ingest([table], tmp_path / "v").n == 2

    def test_what_a_killed_ingest_left_is_removed(self, table: Path, tmp_path: Path) -> None:
        (tmp_path / "v" / ".work").mkdir(parents=True)
        write_text(tmp_path / "v" / ".work" / "rows.f64", "left")
        write_text(tmp_path / "v" / ".vectors.npy.partial-0123456789ab", "left")
        ingest([table], tmp_path / "v")
        assert _names(tmp_path / "v") == FINISHED | {".lock"}


def _big_table(folder: Path) -> Path:
    numbers = np.random.default_rng(0).integers(0, 99, (60_000, 8))
    lines = [f"r{i}," + ",".join(map(str, row)) for i, row in enumerate(numbers)]
    return write_text(folder / "big.csv", "id,a,b,c,d,e,f,g,h\n" + "\n".join(lines))


@pytest.mark.parametrize("make", [_big_array, _big_table])
def test_a_full_disk_is_named_wherever_it_strikes_and_nothing_looks_finished(
    tmp_path: Path, small_disk, make
) -> None:
    path = make(tmp_path)
    finished = []
    for mebibytes in range(1, 11):
        out = small_disk(mebibytes << 20) / "v"
        try:
            ingest([path], out)
            finished.append(mebibytes)
            assert open_vector_set(out).n == 60_000
        except DiskFull as error:
            assert "same command again" in str(error)
            assert not _names(out) & {"manifest.json", ".work"}
            assert not list(out.rglob("*.partial-*"))
    # the smallest fail, the largest don't, and more room never hurts
    assert finished == list(range(finished[0], 11))
    assert finished[0] > 2


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_ingest_leaves_nothing_that_looks_finished(
    tmp_path: Path, how: signal.Signals
) -> None:
    path = _big_array(tmp_path, 400_000)
    out = tmp_path / "v"
    code = (
        "import sys; from pathlib import Path; from nearfield.ingest import ingest;"
        "ingest([Path(sys.argv[1])], Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path, out], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (out / ".work").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (out / "manifest.json").exists()
    if how == signal.SIGINT:
        assert _names(out) <= {".lock", "rejects.csv"}
    report = ingest([path], out)
    assert report.n == 400_000
    assert _names(out) == FINISHED | {".lock"}


def test_the_vector_set_says_what_it_was_made_from(table: Path, tmp_path: Path) -> None:
    ingest([table], tmp_path / "v", options(scale="standard"))
    stored = json.loads((tmp_path / "v" / "space.json").read_bytes())["statistics"]
    assert stored["kind"] == "table"
    assert stored["numbers"] == [["x", 0]]
    assert (stored["centre"], stored["factor"]) == ([2.0], [1.0])
    manifest = json.loads((tmp_path / "v" / "manifest.json").read_bytes())
    assert manifest["facts"]["sources"] == ["t.csv"]
