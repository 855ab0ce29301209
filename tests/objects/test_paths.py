"""Object paths: what a local path can, an object's can, against a real HTTP server."""

import json
import os
import pickle

import numpy as np
import pyarrow as pa
import pytest

from index_build.segments import open_segments, segments_finished, write_segments
from index_build.vector_file import mapped_vectors, send_vectors, vectors_of
from nearfield.copies import open_vector_set, send_folder
from nearfield.errors import DamagedArtefact, MissingFile, UsageError
from nearfield.files import atomic_path, remove_tree, write_bytes
from nearfield.locations import local_path, location
from nearfield.manifest import read_manifest
from nearfield.neighbours import NeighbourTable, part_is_finished, read_part_rows, write_part
from nearfield.objects import ObjectPath
from nearfield.vectorset import Geometry, write_vector_set


@pytest.fixture(params=["file system", "object store"])
def place(request, tmp_path):
    if request.param == "file system":
        return tmp_path / "place"
    return location(request.getfixturevalue("bucket")) / "place"


class TestBoth:
    """One suite, two implementations."""

    def test_what_is_written_is_read(self, place):
        write_bytes(place / "a" / "b.json", b"content")
        found = place / "a" / "b.json"
        assert found.read_bytes() == b"content"
        assert (found.name, found.parent, found.stat().st_size) == ("b.json", place / "a", 7)
        assert found.with_suffix(".h5") == place / "a" / "b.h5"
        assert found.is_file()
        assert pickle.loads(pickle.dumps(found)) == found

    def test_a_failed_block_leaves_nothing(self, place):
        write_bytes(place / "kept", b"old")
        with pytest.raises(RuntimeError), atomic_path(place / "kept") as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError
        assert (place / "kept").read_bytes() == b"old"
        assert [path.name for path in place.glob("*")] == ["kept"]

    def test_names_are_listed_by_pattern_and_trees_removed(self, place):
        for name in ("lists-1", "lists-2", "block-1"):
            write_bytes(place / "0" / name, b"x")
        write_bytes(place / "run.json", b"x")
        assert sorted(path.name for path in (place / "0").glob("lists-*")) == ["lists-1", "lists-2"]
        assert sorted(path.name for path in place.glob("[!.]*")) == ["0", "run.json"]
        remove_tree(place / "0")
        remove_tree(place / "never there")
        assert [path.name for path in place.glob("*")] == ["run.json"]

    def test_what_is_absent_is_a_missing_file(self, place):
        absent = place / "absent"
        assert not absent.exists()
        for read in (absent.read_bytes, absent.stat):
            with pytest.raises(FileNotFoundError):
                read()
        absent.unlink(missing_ok=True)
        with pytest.raises(MissingFile):
            read_manifest(place / "manifest.json", kind="x")

    def test_segments_are_read_by_name(self, place):
        arrays = {
            "few": np.arange(5, dtype=np.int32),
            "none": np.empty((0, 3), np.float32),
            "many": np.arange(900_000, dtype=np.float32).reshape(-1, 3),
        }
        write_segments(place / "s", [(0, arrays), (7, arrays)], fingerprint="f", facts={"a": 1})
        found = open_segments(place / "s")
        assert (found.fingerprint, found.facts) == ("f", {"a": 1})
        for segment in (7, 0):
            for name in ("few", "none", "many", "few"):
                np.testing.assert_array_equal(found.read(segment, name), arrays[name])
                assert found.read(segment, name).shape == arrays[name].shape
        assert segments_finished(place / "s", fingerprint="f")
        assert not segments_finished(place / "s", fingerprint="g")
        assert not segments_finished(place / "other", fingerprint="f")

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
    def test_damaged_segments_are_found(self, place, damage):
        write_segments(place / "s", [(0, {"a": np.arange(50_000)})], fingerprint="f")
        content = bytearray((place / "s").read_bytes())
        flipped = content.copy()
        flipped[1_000] ^= 1
        damaged = {"truncated": content[: len(content) // 2], "flipped": flipped, "empty": b""}
        write_bytes(place / "s", bytes(damaged[damage]))
        assert not segments_finished(place / "s", fingerprint="f")
        with pytest.raises(DamagedArtefact, match=r"/s: "):
            open_segments(place / "s").read(0, "a")

    def test_parts_are_read_by_rows_and_checked(self, place):
        rows = np.arange(0, 6_000, 2, dtype=np.int32)
        table = NeighbourTable(
            rows, np.arange(9_000, dtype=np.int32).reshape(-1, 3),
            np.arange(9_000, dtype=np.float32).reshape(-1, 3),
        )  # fmt: skip
        path = place / "parts" / "0.h5"
        write_part(path, table, fingerprint="f")
        found = read_part_rows(path, 100, 200)
        np.testing.assert_array_equal(found.rows, np.arange(100, 200, 2))
        np.testing.assert_array_equal(found.neighbours, table.neighbours[50:100])
        assert part_is_finished(path, fingerprint="f")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        write_bytes(path, bytes(content))
        assert not part_is_finished(path, fingerprint="f")
        path.unlink()
        assert not part_is_finished(path, fingerprint="f")

    def test_a_manifest_is_checked_with_its_files(self, place, tmp_path):
        write_part(place / "p.h5", _small_table(), fingerprint="f")
        manifest = read_manifest(place / "p.json", kind="neighbour part")
        write_bytes(place / "p.h5", b"x" * manifest.files["p.h5"].bytes)
        with pytest.raises(DamagedArtefact, match="checksum"):
            read_manifest(place / "p.json", kind="neighbour part")
        with pytest.raises(DamagedArtefact, match="expected a run"):
            read_manifest(place / "p.json", kind="run")


def _small_table():
    ones = np.ones((2, 1), np.int32)
    return NeighbourTable(np.arange(2, dtype=np.int32), ones, ones.astype(np.float32))


class TestVectors:
    """The vectors that tasks read."""

    def test_rows_and_all_are_what_was_sent(self, bucket, monkeypatch):
        monkeypatch.setattr("index_build.vector_file.SEGMENT_BYTES", 4_000)
        vectors = np.random.default_rng(0).normal(size=(1_000, 7)).astype(np.float32)
        target = location(bucket) / "vectors"
        send_vectors(target, vectors, fingerprint="f")
        np.testing.assert_array_equal(mapped_vectors(str(target)), vectors)
        for first, stop in ((0, 10), (140, 290), (990, 2_000), (0, 1_000)):
            np.testing.assert_array_equal(vectors_of(str(target), first, stop), vectors[first:stop])

    def test_they_are_sent_once(self, bucket):
        vectors = np.ones((10, 2), np.float32)
        target = location(bucket) / "vectors"
        send_vectors(target, vectors, fingerprint="f")
        written = target.modified()
        send_vectors(target, vectors, fingerprint="f")
        assert target.modified() == written
        send_vectors(target, 2 * vectors, fingerprint="g")
        assert mapped_vectors(str(target))[0, 0] == 2

    def test_a_flipped_bit_is_found_by_rows_and_in_all(self, bucket):
        vectors = np.ones((1_000, 4), np.float32)
        target = location(bucket) / "vectors"
        send_vectors(target, vectors, fingerprint="f")
        content = bytearray(target.read_bytes())
        content[5_000] ^= 1
        target.write_bytes(bytes(content))
        with pytest.raises(DamagedArtefact):
            vectors_of(str(target), 0, 10)
        with pytest.raises(DamagedArtefact):
            mapped_vectors(str(target))


class TestLocations:
    """Which texts mean what."""

    @pytest.mark.parametrize("text", ["s3://b/run", "s3:/b/run", "s3://b/run/"])
    def test_a_url_survives_path(self, text):
        assert location(text) == ObjectPath("s3://b/run")
        from pathlib import Path

        assert location(Path(text)) == ObjectPath("s3://b/run")

    def test_file_urls_and_odd_names_are_paths(self, tmp_path):
        assert location(f"file://{tmp_path}") == tmp_path
        for name in ("run", "./a:b", "C:", "/x/s3:/y"):
            assert str(location(name)) == str(local_path(location(name)))

    def test_credentials_in_a_url_are_refused_and_not_repeated(self):
        with pytest.raises(UsageError) as error:
            location("s3://key:secret@bucket/run")
        assert "secret" not in str(error.value)

    def test_local_commands_refuse_urls(self):
        with pytest.raises(UsageError, match="local path"):
            local_path(location("s3://b/x"))

    def test_a_missing_package_is_named(self):
        with pytest.raises(UsageError, match="install fsspec's client"):
            location("gs://b/x").read_bytes()
        with pytest.raises(UsageError, match="nosuchkind"):
            location("nosuchkind://b/x").read_bytes()


class TestErrors:
    """What a store answers, as exit codes and sentences."""

    def test_a_missing_bucket_is_named(self, server):
        absent = location("s3://there-is-no-such-bucket/run")
        with pytest.raises(MissingFile, match="no bucket s3://there-is-no-such-bucket"):
            absent.write_bytes(b"x")
        with pytest.raises(MissingFile, match="no bucket"):
            (absent / "run.json").read_bytes()

    def test_two_cant_create_the_same(self, bucket):
        path = location(bucket) / "lock"
        assert path.create(b"one")
        assert not path.create(b"two")
        assert path.read_bytes() == b"one"

    def test_the_store_decides_who_creates(self, bucket, monkeypatch):
        path = location(bucket) / "lock"
        path.write_bytes(b"one")
        monkeypatch.setattr(ObjectPath, "exists", lambda self: False)
        assert not path.create(b"two")
        assert path.read_bytes() == b"one"


@pytest.mark.parametrize("hostile", ["absolute", "upwards", "fingerprint"])
def test_a_copy_writes_nowhere_but_into_its_folder_of_the_cache(bucket, tmp_path, hostile):
    recordings = pa.table({"recording_id": ["a", "b"]})
    made = write_vector_set(tmp_path / "v", np.eye(2, dtype=np.float32), recordings, Geometry())
    place = location(f"{bucket}/v")
    send_folder(made.path, place)
    manifest = json.loads((place / "manifest.json").read_bytes())
    files, outside = manifest["files"], tmp_path / "outside"
    if hostile == "fingerprint":
        manifest["fingerprint"] = f"/../../../{outside.name}"
    else:
        named = str(outside / "f") if hostile == "absolute" else f"../../../{outside.name}/f"
        files[named] = files["space.json"]
        (place / named).put(made.path / "space.json")
    (place / "manifest.json").write_bytes(json.dumps(manifest).encode())
    if hostile == "fingerprint":
        assert open_vector_set(f"{bucket}/v").n == 2
    else:
        with pytest.raises(DamagedArtefact, match="outside of its folder"):
            open_vector_set(f"{bucket}/v")
    assert not outside.exists()


def test_old_scratch_is_removed(tmp_path, monkeypatch):
    from nearfield.locations import scratch_file

    monkeypatch.setenv("NEARFIELD_CACHE", str(tmp_path))
    old, young = tmp_path / "partial-old", tmp_path / "partial-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "f").write_bytes(b"x")
    os.utime(old, (0, 0))
    with scratch_file("x"):
        pass
    assert not old.exists()
    assert young.exists()


def test_a_lock_that_lies_in_a_folder_is_not_sent_over_the_lease(bucket, tmp_path):
    recordings = pa.table({"recording_id": ["a", "b"]})
    made = write_vector_set(tmp_path / "v", np.eye(2, dtype=np.float32), recordings, Geometry())
    (made.path / ".lock").write_text("12345\n")
    place, seen = location(f"{bucket}/v"), []
    send_folder(made.path, place, lambda: seen.append((place / "manifest.json").exists()))
    assert seen == [False]
    assert not (place / ".lock").exists()
    assert open_vector_set(str(place.url)).fingerprint == made.fingerprint
