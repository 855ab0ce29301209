"""The demo's dump: the same bytes from the same seed, and exactly the flaws that it reports."""

import hashlib
import json
import tarfile

import numpy as np
import pytest
import zstandard

from nearfield.demo.dump import write_dump
from nearfield.errors import RunLocked, UsageError
from nearfield.files import TEMPORARY_MARK
from nearfield.lock import locked
from tests.ingest.document_samples import gather


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    return write_dump(tmp_path_factory.mktemp("dump"), recordings=1200, seed=5)


def checksums(report):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in report.archives]


def members(archive):
    with (
        archive.open("rb") as file,
        tarfile.open(fileobj=zstandard.ZstdDecompressor().stream_reader(file), mode="r|") as tar,
    ):
        return {member.name: tar.extractfile(member).read() for member in tar}


@pytest.mark.slow
def test_the_bytes_depend_on_the_seed_and_not_on_the_workers(dump, tmp_path):
    again = write_dump(tmp_path / "again", recordings=1200, seed=5, workers=2)
    other = write_dump(tmp_path / "other", recordings=1200, seed=6)
    assert checksums(again) == checksums(dump)
    assert not set(checksums(other)) & set(checksums(dump))
    assert (again.documents, again.rejects) == (dump.documents, dump.rejects)


def test_a_dump_that_is_there_is_kept_and_a_different_or_damaged_one_is_replaced(tmp_path):
    def stamps():
        return [path.stat().st_mtime_ns for path in first.archives]

    first = write_dump(tmp_path, recordings=40)
    before = stamps()
    assert write_dump(tmp_path, recordings=40) == first
    assert stamps() == before
    sums = checksums(first)
    first.archives[3].write_bytes(b"cut")
    assert checksums(write_dump(tmp_path, recordings=40)) == sums
    assert checksums(write_dump(tmp_path, recordings=41)) != sums


def test_a_dump_that_another_process_writes_is_left_alone(tmp_path):
    with locked(tmp_path), pytest.raises(RunLocked, match="in use"):
        write_dump(tmp_path, recordings=40)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    left = tmp_path / f".dump.tar.zst{TEMPORARY_MARK}0"
    left.touch()
    write_dump(tmp_path, recordings=40)
    assert not left.exists()


def test_ingest_rejects_exactly_what_the_report_says(dump):
    _, ids, gathered, rejects = gather(dump.archives[0].parent, space="combined")
    assert dict(rejects.counts) == dump.rejects
    assert set(dump.rejects) >= {
        "no mfcc", "bpm is 0", "unknown key", "not JSON", "no high-level document"
    }  # fmt: skip
    assert sum(dump.rejects.values()) < 0.05 * len(ids)
    assert gathered.facts["submissions_folded"] > 100
    assert 1130 < len(ids) < 1200


def test_archives_have_the_layout_and_the_schema_of_real_ones(dump):
    low = members(dump.archives[0])
    assert dump.archives[0].name == "acousticbrainz-lowlevel-json-20220623-0.tar.zst"
    assert "acousticbrainz-lowlevel-json-20220623/COPYING" in low
    name = next(name for name in low if name.endswith("-1.json"))
    _, level, two, one, file = name.split("/")
    assert (level, two, one) == ("lowlevel", file[:2], file[2])
    document = json.loads(low[name])
    assert set(document) == {"lowlevel", "metadata", "rhythm", "tonal"}
    assert len(document["lowlevel"]) == 47
    assert np.array(document["lowlevel"]["mfcc"]["cov"]).shape == (13, 13)
    assert len(document["rhythm"]["beats_position"]) == document["rhythm"]["beats_count"]
    high = members(dump.archives[4])
    assert len(json.loads(high[name.replace("lowlevel", "highlevel")])["highlevel"]) == 18


def test_the_schema_is_the_real_one(dump, real_data):
    def keys(node, path=()):
        if not isinstance(node, dict):
            return {path}
        return set().union(*(keys(value, (*path, key)) for key, value in node.items()))

    folder = real_data / "acousticbrainz-docs-misc"
    real = json.loads((folder / "server__0dad432b-16cc-4bf0-8961-fd31d124b01b.json").read_bytes())
    low = members(dump.archives[0])
    made = json.loads(low[next(name for name in low if name.endswith("-1.json"))])
    for section in ("lowlevel", "rhythm", "tonal"):
        assert keys(made[section]) == keys(real[section])


def test_neighbours_mostly_share_the_genre(dump):
    vectors, _, gathered, _ = gather(dump.archives[0].parent, space="combined")
    genres = np.array(gathered.recordings["genre"].to_pylist())
    apart = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = np.argsort(apart, axis=1)[:, :5]
    chance = np.mean(genres[:, None] == genres[None])
    assert np.mean(genres[nearest] == genres[:, None]) > 5 * chance


@pytest.mark.parametrize("wrong", [{"recordings": 0}, {"workers": 0}])
def test_nothing_to_write_is_refused(tmp_path, wrong):
    with pytest.raises(UsageError, match="at least 1"):
        write_dump(tmp_path, **wrong)
