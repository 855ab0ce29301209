"""Nothing in a dump can change without being named, and nothing in it can hang its check."""

import gzip
import shutil
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from dumps import guard
from dumps.dump.check import check_dump
from dumps.dump.readers import lists_of
from dumps.dump.write import DumpOptions
from dumps.guard import unreadable
from dumps.verify import verify_run
from nearfield.errors import MissingFile
from tests.dumps.dump_case import K, N, dumped, resum
from tests.dumps.small_run import agree, small_config, small_run

ENDLESS = Path(__file__).parent / "golden" / "endless.h5.gz"
"""A matrix of 40 x 5 with one byte changed: HDF5 reads it for ever."""
FILES = (
    *("LICENSE.txt", "README.md", "SHA256SUMS", "croissant.json", "datapackage.json"),
    *("matrix-flat.parquet", "matrix.csv.zst", "matrix.h5", "matrix.parquet", "provenance.json"),
    *("recordings.csv.zst", "recordings.parquet", "sample.parquet"),
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return dumped(tmp_path_factory.mktemp("checked")).path


@pytest.fixture
def copy(original, tmp_path):
    return shutil.copytree(original, tmp_path / original.name)


def problems(path):
    found = check_dump(path)
    assert found.passed == (not found.problems)
    return " | ".join(found.problems)


def test_a_sound_dump_passes_and_is_found_by_latest(original):
    found = check_dump(original)
    assert found.problems == ()
    assert (found.n, found.k, found.files) == (N, K, len(FILES))
    assert check_dump(original.parent).path == original


def test_lists_are_read_without_holding_the_file(tmp_path):
    n, k = 40_000, 40
    values = np.random.default_rng(0).random(n * k, np.float32)
    lists = [pa.ListArray.from_arrays(np.arange(0, n * k + 1, k, dtype=np.int32), pa.array(each))
             for each in (np.arange(n * k, dtype=np.int32), values)]  # fmt: skip
    rows = pa.array(np.arange(n, dtype=np.int32))
    columns = [rows, rows.cast(pa.string()), *lists]
    table = pa.table(columns, names=["row", "recording_id", "neighbours", "distances"])
    path = tmp_path / "matrix.parquet"
    pq.write_table(table, path, row_group_size=1000, use_dictionary=False, compression="none")
    before, most = pa.total_allocated_bytes(), 0
    for _ in lists_of(path, small_config(n, k), 1000):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < path.stat().st_size / 5


@pytest.mark.parametrize(
    "formats", [("hdf5",), ("parquet",), ("csv",), ("hdf5", "csv")], ids="+".join
)
def test_any_choice_of_formats_passes(tmp_path, formats):
    assert problems(dumped(tmp_path, DumpOptions(formats=formats)).path) == ""


def test_the_tests_know_every_file(original):
    assert tuple(sorted(path.name for path in original.iterdir())) == FILES


@pytest.mark.parametrize("name", FILES)
class TestDamage:
    def test_a_byte_flipped_anywhere_is_found(self, copy, name):
        path = copy / name
        content = path.read_bytes()
        rng = np.random.default_rng(len(content))
        last = len(content) - 1
        for place in {0, 64, 65, 66, last - 1, last, *rng.integers(0, last, 12).tolist()}:
            for mask in (0x01, 0x20, 0xFF):
                flipped = bytearray(content)
                flipped[min(place, last)] ^= mask
                path.write_bytes(flipped)
                assert not check_dump(copy).passed, (name, place, mask)

    def test_a_cut_anywhere_is_found_and_the_file_is_named(self, copy, name):
        path = copy / name
        content = path.read_bytes()
        lines = [at for at, byte in enumerate(content[:2000]) if byte == 10]
        for length in {0, 1, len(content) // 2, len(content) - 1, *lines[:3]}:
            path.write_bytes(content[:length])
            assert name in problems(copy)

    def test_a_missing_file_is_named(self, copy, name):
        (copy / name).unlink()
        assert f"{name} is missing" in problems(copy)


def test_what_doesnt_belong_is_named(copy):
    (copy / "virus.exe").write_text("x")
    (copy / "folder").mkdir()
    (copy / "link").symlink_to("/etc/passwd")
    said = problems(copy)
    assert "virus.exe isn't part of the dump" in said
    assert "folder isn't a plain file" in said
    assert "link isn't a plain file" in said


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(MissingFile):
        check_dump(tmp_path / "none")
    assert "SHA256SUMS is missing" in problems(tmp_path)
    (tmp_path / "LATEST").write_text("../../etc\n")
    with pytest.raises(MissingFile, match="isn't a dump"):
        check_dump(tmp_path)


def forged_table(path, change):
    """Rewrite a Parquet file with some of its columns changed."""
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def column(name, value_of):
    def change(table):
        place = table.column_names.index(name)
        values = table[name].to_pylist()
        changed = pa.array(value_of(values), table.schema.field(name).type)
        return table.set_column(place, table.schema.field(name), changed)

    return change


def swapped(values):
    return [values[1], values[0], *values[2:]]


def nudged(values):
    first = [*values[0][:-1], float(np.nextafter(np.float32(values[0][-1]), np.float32(9)))]
    return [first, *values[1:]]


class TestForgery:
    """Checksums and descriptions agree with the forged file: only its content speaks against it."""

    @pytest.mark.parametrize(
        ("name", "change", "said"),
        [
            ("matrix.parquet", column("distances", nudged), "has other distances than matrix.h5"),
            ("matrix.parquet", column("neighbours", swapped), "has other neighbours than"),
            ("matrix.parquet", column("recording_id", swapped), "has other recording ids than"),
            ("matrix.parquet", column("row", swapped), "has other rows than"),
            ("matrix.parquet", lambda t: t.slice(0, N - 1), "matrix.parquet can't be read"),
            ("matrix.parquet", lambda t: pa.concat_tables([t, t]), "has other rows than"),
            ("matrix.parquet", lambda t: t.drop_columns("row"), "its columns are"),
            ("matrix-flat.parquet", column("rank", swapped), "has other pairs than"),
            ("matrix-flat.parquet", column("neighbour_id", swapped), "has other pairs than"),
            ("matrix-flat.parquet", lambda t: t.slice(0, 7), "matrix-flat.parquet can't be read"),
            ("sample.parquet", column("distances", nudged), "has other lists than the matrix"),
            ("sample.parquet", column("neighbour_ids", swapped), "has other recording ids"),
            ("recordings.parquet", column("title", swapped), "recordings.csv.zst has other values"),
            (
                "recordings.parquet",
                column("recording_id", lambda v: [v[1], *v[1:]]),
                "1 recording ids come more than once",
            ),
        ],
    )  # fmt: skip
    def test_tables(self, copy, name, change, said):
        forged_table(copy / name, change)
        resum(copy)
        assert said in problems(copy)

    @pytest.mark.parametrize(
        ("place", "value", "said"),
        [
            (("neighbours", 9, 0), 9, "the lists: 1 rows name themselves (first: row 9)"),
            (("neighbours", 9, 0), N, "name a row outside"),
            (("distances", 9, 0), np.nan, "isn't a finite number"),
            (("distances", 9, 0), 9e9, "aren't sorted"),
        ],
    )
    def test_hdf5(self, copy, place, value, said):
        name, row, at = place
        with h5py.File(copy / "matrix.h5", "r+") as file:
            file[name][row, at] = value
        resum(copy)
        assert said in problems(copy)

    def test_csv(self, copy):
        path = copy / "matrix.csv.zst"
        with zstandard.open(path, "rb") as stream:
            text = stream.read()
        for forged, said in (
            (text.replace(b"{", b"{9", 1), "matrix.csv.zst has other neighbours"),
            (text.replace(b"{", b"{x", 1), "isn't {number,number,...}"),
            (text.replace(b"row,", b"line,", 1), "its columns are"),
            (text[: len(text) // 2], "matrix.csv.zst can't be read"),
            (text + text.split(b"\n", 1)[1], "has other rows than"),
            (b"", "matrix.csv.zst can't be read"),
        ):
            path.write_bytes(zstandard.compress(forged))
            resum(copy)
            assert said in problems(copy)
        path.write_bytes(b"plain")
        resum(copy)
        assert "matrix.csv.zst can't be read" in problems(copy)

    def test_descriptions(self, copy):
        for name, old, new in (
            ("provenance.json", '"n": 240', '"n": 1e300'),
            ("provenance.json", '"k": 6', '"k": -6'),
            ("provenance.json", '"hdf5"', '"hdf6"'),
            ("datapackage.json", '"bytes": ', '"bytes": 1'),
            ("croissant.json", '"sha256": "', '"sha256": "0'),
            ("croissant.json", "{", "[" * 200_000),
        ):
            content = (copy / name).read_text()
            (copy / name).write_text(content.replace(old, new, 1))
            if name == "provenance.json":
                resum(copy)
            else:
                only_sums(copy)
            assert problems(copy), (name, new)
            (copy / name).write_text(content)


def only_sums(path):
    kept = {name: (path / name).read_text() for name in ("datapackage.json", "croissant.json")}
    import hashlib

    for name, text in kept.items():
        (path / name).write_text(text)
    (path / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256(entry.read_bytes()).hexdigest()}  {entry.name}\n"
            for entry in sorted(path.iterdir())
            if entry.name != "SHA256SUMS"
        )
    )


class TestHostileHdf5:
    @pytest.fixture
    def impatient(self, monkeypatch):
        monkeypatch.setattr(guard, "PATIENCE_S", 1.0)

    def endless(self, path):
        path.write_bytes(gzip.decompress(ENDLESS.read_bytes()))

    def test_a_file_that_hdf5_never_finishes_is_given_up(self, tmp_path, impatient):
        self.endless(tmp_path / "matrix.h5")
        assert "wasn't through with it after 1 s" in unreadable(tmp_path / "matrix.h5")

    def test_verify_gives_it_up_too_whatever_its_manifest_says(self, tmp_path, impatient):
        vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
        run = small_run(tmp_path, vectors)
        self.endless(run.matrix)
        agree(run)
        report = verify_run(run)
        assert not report.passed
        assert "wasn't through with it" in report.problems[0]

    def test_a_dump_with_it_is_refused(self, copy, impatient):
        self.endless(copy / "matrix.h5")
        resum(copy)
        assert "wasn't through with it" in problems(copy)

    def test_a_child_that_is_killed_is_an_answer(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"] = np.arange(4)
        assert unreadable(tmp_path / "a.h5") is None
        guard._child().process.kill()
        assert unreadable(tmp_path / "a.h5") is None

    def test_the_child_runs_nothing_out_of_the_current_folder(self, tmp_path, monkeypatch):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"] = np.arange(4)
        (tmp_path / "h5py.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        monkeypatch.chdir(tmp_path)
        guard._child().end()
        assert unreadable(tmp_path / "a.h5") is None
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("name", ["neighbours", "recording_ids"])
    def test_absurd_shapes_links_and_other_files_are_refused(self, copy, name, tmp_path):
        matrix = copy / "matrix.h5"
        plain = matrix.read_bytes()
        secret = tmp_path / "secret"
        secret.write_bytes(b"\0" * 8 * N * K)
        for forge in (self.enormous, self.soft, self.external_link, self.external_data):
            matrix.write_bytes(plain)
            with h5py.File(matrix, "r+") as file:
                del file[name]
                forge(file, name, secret)
            resum(copy)
            assert "matrix.h5 can't be read" in problems(copy), forge.__name__

    def enormous(self, file, name, _secret):
        file.create_dataset(name, (1 << 50, K), "<i4", chunks=(1, K))

    def soft(self, file, name, _secret):
        file[name] = h5py.SoftLink("/distances")

    def external_link(self, file, name, secret):
        file[name] = h5py.ExternalLink(str(secret), "/x")

    def external_data(self, file, name, secret):
        file.create_dataset(name, (N, K), "<i4", external=[(str(secret), 0, 4 * N * K)])


def test_an_interrupted_question_shifts_no_answers(original, tmp_path, monkeypatch):
    forged = tmp_path / "forged.h5"
    forged.write_bytes(gzip.decompress(ENDLESS.read_bytes()))
    monkeypatch.setattr(guard, "PATIENCE_S", 2.0)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(guard.select, "select", interrupted)
        unreadable(original / "matrix.h5")
    assert "wasn't through" in unreadable(forged)
    assert unreadable(original / "matrix.h5") is None


def interrupted(*_words):
    raise KeyboardInterrupt
