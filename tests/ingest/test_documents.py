"""Documents to vectors: joined, folded, and every refusal counted."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from nearfield.errors import DiskFull, InputRejected, MissingFile, UsageError
from nearfield.ingest import document_spill, ingest
from nearfield.ingest.documents import gather_documents, is_document_source
from nearfield.ingest.options import DocumentOptions, IngestOptions
from nearfield.ingest.rejects import Reject, RejectLog
from tests.ingest.document_samples import gather, high, low, mbid, tar_bytes, write_tar


def dump(folder, documents=60):
    """Two archives per level with 1 to 3 submissions a recording, some without a high level."""
    parts = [{}, {}, {}, {}]
    for number in range(documents):
        for offset in range(1 + number % 3):
            name = f"dump/{mbid(number)[:2]}/{mbid(number)}-{offset}.json"
            parts[(number + offset) % 2][name] = low(10 * number + offset)
            if number % 7:
                parts[2 + number % 2][name] = high(10 * number + offset)
    folder.mkdir(exist_ok=True)
    for place, members in enumerate(parts):
        write_tar(folder / f"part-{place}.tar.zst", members)
    return folder


def test_low_and_high_level_are_joined_by_recording_and_offset(tmp_path):
    documents = {
        f"low/{mbid(2)}-0.json": low(1),
        f"high/{mbid(2)}-0.json": high(1),
        f"any/{mbid(1)}-0.json": low(2),
        f"other/{mbid(1)}-3.json": high(2),
    }
    made, ids, _, rejects = gather(write_tar(tmp_path / "a.tar", documents), space="combined")
    assert ids == [mbid(2)]
    assert made.shape == (1, 67)
    assert rejects.counts == {"no high-level document": 1, "no low-level document": 1}


def test_every_number_reaches_its_column(tmp_path):
    one, two = low(1), high(1)
    path = write_tar(tmp_path / "a.tar", {f"l/{mbid(1)}-0.json": one, f"h/{mbid(1)}-0.json": two})

    def row(space):
        return pytest.approx(gather(path, space=space)[0][0].tolist(), abs=1e-6)

    def circle(turns):
        return [math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)]

    models = two["highlevel"]
    assert circle(math.log2(one["rhythm"]["bpm"])) == row("bpm")
    assert circle(math.log2(one["rhythm"]["onset_rate"])) == row("onsetrate")
    assert circle((10 - 3) / 12) == row("key")
    assert [models[f"mood_{m}"]["all"][m] for m in
            ("happy", "sad", "aggressive", "relaxed", "party")] == row("moods")  # fmt: skip
    assert [
        models["mood_acoustic"]["all"]["acoustic"],
        models["mood_electronic"]["all"]["electronic"],
        models["voice_instrumental"]["all"]["instrumental"],
    ] == row("instruments")
    for space in ("dortmund", "rosamerica", "tzanetakis"):
        classes = models[f"genre_{space}"]["all"]
        assert [classes[name] for name in sorted(classes)] == row(space)


def test_cepstra_are_standardised_over_the_recordings(tmp_path):
    documents = {f"{mbid(i)}-0.json": low(i) for i in range(9)}
    made, ids, _, _ = gather(write_tar(tmp_path / "a.tar", documents), space="gfccs")
    column = [documents[f"{mbid}-0.json"]["lowlevel"]["gfcc"]["mean"][5] for mbid in ids]
    mean = math.fsum(column) / 9
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in column) / 9)
    assert made[:, 5].tolist() == pytest.approx([(x - mean) / deviation for x in column], abs=1e-5)


def test_neither_order_of_archives_nor_workers_nor_memory_change_the_result(tmp_path, monkeypatch):
    folder = dump(tmp_path / "dump")
    archives = sorted(folder.iterdir())
    made, ids, gathered, rejects = gather(folder)
    assert ids == sorted(ids)
    assert len(ids) == 51
    for sources, workers in (((folder,), 2), (archives[::-1], 2), ([archives[2], folder], 1)):
        again, ids_again, gathered_again, rejects_again = gather(*sources, workers=workers)
        assert np.array_equal(made, again)
        assert ids == ids_again
        assert gathered.recordings.equals(gathered_again.recordings)
        assert gathered.geometry == gathered_again.geometry
        assert (rejects.counts, rejects.listed) == (rejects_again.counts, rejects_again.listed)
    monkeypatch.setattr(document_spill, "RECORDS_IN_MEMORY", 5)
    monkeypatch.setattr("nearfield.ingest.documents.GROUP_RECORDS", 3)
    monkeypatch.setattr("nearfield.ingest.document_scan.FILES_PER_TASK", 2)
    again, ids_again, _, rejects_again = gather(folder)
    assert np.array_equal(made, again)
    assert ids == ids_again
    assert sorted(map(str, rejects.listed)) == sorted(map(str, rejects_again.listed))


def test_an_archive_a_folder_of_files_and_a_mixture_give_the_same(tmp_path):
    documents = {f"{mbid(i)[:2]}/{mbid(i)}-0.json": low(i) for i in range(20)}
    archive = write_tar(tmp_path / "a.tar.gz", documents)
    for name, document in documents.items():
        path = tmp_path / "tree" / "deep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    whole = gather(archive)
    assert np.array_equal(whole[0], gather(tmp_path / "tree")[0])
    assert np.array_equal(whole[0], gather(tmp_path / "tree", workers=2)[0])
    single = gather(next((tmp_path / "tree").rglob("*.json")), space="bpm")
    assert single[0].shape == (1, 2)


def test_a_name_without_offset_is_offset_zero(tmp_path):
    documents = {f"{mbid(1)}.json": low(1), f"high/{mbid(1).upper()}-0.json": high(1)}
    assert gather(write_tar(tmp_path / "a.tar", documents), space="all")[0].shape == (1, 93)


def test_the_lowest_usable_offset_stands_for_the_recording(tmp_path):
    documents = {
        f"{mbid(1)}-10.json": low(10, tags={"title": "ten"}),
        f"{mbid(1)}-2.json": low(2, tags={"title": "two"}),
        f"{mbid(1)}-0.json": low(0, bpm=0, tags={"title": "nought"}),
    }
    path = write_tar(tmp_path / "a.tar", documents)
    _, _, gathered, rejects = gather(path, space="bpm")
    assert gathered.recordings.to_pylist() == [{"recording_id": mbid(1), "title": "two"}]
    assert rejects.listed == [Reject(str(path), f"{mbid(1)}-0", "bpm is 0", "0")]
    assert gathered.facts["submissions_folded"] == 1
    assert gather(path, space="mfccs")[2].recordings["title"].to_pylist() == ["nought"]


def test_the_median_takes_middle_numbers_and_stays_on_the_circles(tmp_path):
    tempos = [60.0, 123.0, 121.0]
    documents = {f"{mbid(1)}-{i}.json": low(i, bpm=bpm) for i, bpm in enumerate(tempos)}
    documents |= {f"h/{mbid(1)}-{i}.json": high(i) for i in range(3)}
    path = write_tar(tmp_path / "a.tar", documents)
    made = gather(path, policy="median", space="bpm")[0][0]
    turns = 2 * math.pi * math.log2(121)
    assert made.tolist() == pytest.approx([math.cos(turns), math.sin(turns)], abs=1e-6)
    moods = gather(path, policy="median", space="moods")[0][0]
    sad = sorted(high(i)["highlevel"]["mood_sad"]["all"]["sad"] for i in range(3))
    assert moods[1] == pytest.approx(sad[1])


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not JSON"),
        (b'{"lowlevel": {"mfcc": ', "not JSON"),
        (json.dumps(low(bpm=math.nan)).encode(), "not JSON"),
        (json.dumps(low(bpm=math.inf)).encode(), "not JSON"),
        (json.dumps(low()).encode() + b"x", "not JSON"),
        (json.dumps(low()).encode().replace(b'"title 0"', b'"\xff"'), "not JSON"),
        (json.dumps(low(bpm=1.5)).encode().replace(b"1.5", b"1e999"), "not finite"),
        (low(tags={"title": "\ud800"}), "not JSON"),
        (b"[" * 200_000, "wrong type"),
        (b'{"a":' * 200_000, "too deep"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "too deep"),
        (b"[]", "wrong type"),
        (low(bpm="fast"), "wrong type"),
        (low(mfcc=[1.0] * 12 + ["x"]), "wrong type"),
        ({"lowlevel": 5}, "wrong type"),
        ({"metadata": {}}, "no AcousticBrainz document"),
        ({}, "no AcousticBrainz document"),
        (b"x" * ((16 << 20) + 1), "too large"),
        (low(mfcc=None), "no mfcc"),
        (low(mfcc=[1.0] * 12), "no mfcc"),
        (low(gfcc=[]), "no gfcc"),
        (low(mfcc=[1e7] + [1.0] * 12), "mfcc out of range"),
        (low(gfcc=[1.0] * 12 + [-1e30]), "gfcc out of range"),
        (low(bpm=0), "bpm is 0"),
        (low(bpm=-3.0), "bpm is 0"),
        (low(bpm=None), "no bpm"),
        (low(onset_rate=0.0), "onset rate is 0"),
        (low(onset_rate=None), "no onset rate"),
        (low(key="H"), "unknown key"),
        (low(scale="phrygian"), "unknown key"),
        (low(key=None), "no key"),
        ({"rhythm": {"bpm": 100.0}}, "no mfcc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_document_that_cannot_be_used_is_counted_once_with_its_reason(tmp_path, document, reason):
    members = {
        f"l/{mbid(1)}-0.json": document,
        f"h/{mbid(1)}-0.json": high(1),
        f"l/{mbid(2)}-0.json": low(2),
        f"h/{mbid(2)}-0.json": high(2),
    }
    _, ids, _, rejects = gather(write_tar(tmp_path / "a.tar", members), space="all")
    assert ids == [mbid(2)]
    assert rejects.counts == {reason: 1}
    assert mbid(1) in rejects.listed[0].item


@pytest.mark.parametrize("model", ["mood_happy", "voice_instrumental", "genre_tzanetakis"])
def test_a_missing_model_is_named_and_hurts_only_the_spaces_that_need_it(tmp_path, model):
    path = write_tar(
        tmp_path / "a.tar", {f"{mbid(1)}.json": low(), f"h/{mbid(1)}.json": high(0, without=model)}
    )
    made, _, gathered, rejects = gather(path, space="all")
    assert len(made) == 0
    assert rejects.counts == {f"no model {model}": 1}
    assert gathered.facts["flaws"] == {f"no model {model}": 1}
    assert len(gather(path, space="rosamerica=1,bpm=1")[0]) == 1


def test_a_class_that_a_model_lacks_is_named(tmp_path):
    document = high()
    del document["highlevel"]["genre_rosamerica"]["all"]["jaz"]
    path = write_tar(tmp_path / "a.tar", {f"{mbid(1)}.json": document})
    rejects = gather(path, space="rosamerica")[3]
    assert rejects.listed[0].reason == "no model genre_rosamerica"
    assert "jaz" in rejects.listed[0].detail


@pytest.mark.parametrize("probability", [1e6, -0.5, 1e200])
def test_a_probability_that_is_none_is_a_flaw_of_its_model(tmp_path, probability):
    strange = high()
    strange["highlevel"]["genre_rosamerica"]["all"]["jaz"] = probability
    path = write_tar(tmp_path / "a.tar", {f"{mbid(1)}.json": strange, f"{mbid(2)}.json": high()})
    made, ids, _, rejects = gather(path, space="rosamerica")
    assert ids == [mbid(2)]
    assert rejects.counts == {"genre_rosamerica out of range": 1}
    assert f"{probability:g}" in rejects.listed[0].detail
    assert np.isfinite(made).all()


def test_of_a_document_that_comes_twice_the_first_is_kept(tmp_path):
    name = f"{mbid(1)}-0.json"
    first = write_tar(tmp_path / "a.tar", {name: low(1)})
    second = write_tar(tmp_path / "b.tar", {name: low(2)})
    for sources in ((first, second), (second, first)):
        made, _, _, rejects = gather(*sources, space="bpm")
        assert np.array_equal(made, gather(first, space="bpm")[0])
        assert rejects.listed == [
            Reject(str(second), f"{mbid(1)}-0", "duplicate document", "low-level")
        ]


def test_the_same_file_named_twice_is_read_once(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{mbid(1)}-0.json": low(1)})
    _, ids, _, rejects = gather(path, tmp_path, path, space="bpm")
    assert (ids, rejects.total) == ([mbid(1)], 0)


def test_a_document_under_another_name_is_known_by_its_tag_and_numbered(tmp_path):
    tags = {"musicbrainz_recordingid": [mbid(4)], "title": "named by tag"}
    members = {
        "x/0001.json": low(1, tags=tags),
        "x/0002.json": low(2, tags=tags),
        f"{mbid(4)}-5.json": low(3, bpm=0),
        "x/0003.json": low(3),
        "x/readme.txt": b"",
    }
    path = write_tar(tmp_path / "a.tar", members)
    _, ids, gathered, rejects = gather(path, space="bpm")
    assert ids == [mbid(4)]
    assert rejects.counts == {"bpm is 0": 1, "no recording id": 1}
    assert gathered.recordings["title"].to_pylist() == ["named by tag"]
    assert gathered.facts["submissions_folded"] == 1
    assert gathered.facts["other_members_skipped"] == 1


def test_labels_are_first_values_and_odd_ones_do_no_harm(tmp_path):
    tags = [
        {"title": ["first", "second"], "artist": "plain", "album": [], "genre": [3]},
        {"title": "nul\0byte", "artist": " ü ", "album": "x" * 5000, "genre": {"a": 1}},
        {"title": None, "artist": ["  "], "album": [None]},
    ]
    members = {f"{mbid(i)}.json": low(i, tags=tag) for i, tag in enumerate(tags)}
    labels = gather(write_tar(tmp_path / "a.tar", members))[2].recordings.to_pylist()
    assert labels[0] == {
        "recording_id": mbid(0),
        "title": "first",
        "artist": "plain",
        "album": None,
    }
    assert (labels[1]["title"], labels[1]["artist"]) == ("nulbyte", "ü")
    assert len(labels[1]["album"]) == 1000
    assert set(labels[2].values()) == {mbid(2), None}


def test_labels_that_the_low_level_document_lacks_come_from_the_high_level_one(tmp_path):
    members = {f"{mbid(1)}.json": low(1), f"h/{mbid(1)}.json": high(1)}
    labels = gather(write_tar(tmp_path / "a.tar", members))[2].recordings.to_pylist()
    assert labels[0]["title"] == "title 1"
    assert labels[0]["album"] == "only here"


def test_the_default_space_follows_what_was_seen(tmp_path):
    lows = write_tar(tmp_path / "low.tar", {f"{mbid(1)}.json": low(1)})
    highs = write_tar(tmp_path / "high.tar", {f"{mbid(1)}.json": high(1)})
    spaces = [gather(*given)[2].facts["space"] for given in ((lows,), (highs,), (lows, highs))]
    assert spaces == ["lowlevel", "highlevel", "combined"]


def test_a_truncated_archive_gives_what_came_before_and_one_reject(tmp_path):
    members = {f"{mbid(i)}-0.json": low(i) for i in range(63)}
    plain = tar_bytes(members)
    path = tmp_path / "a.tar"
    path.write_bytes(plain[: len(plain) // 2])
    whole, cut = gather(write_tar(tmp_path / "b.tar", members)), gather(path)
    assert 20 < len(cut[1]) < 40
    assert cut[1] == whole[1][: len(cut[1])]
    assert cut[3].listed == [
        Reject(
            str(path), "", "archive truncated", "the end is missing; what came before it was used"
        )
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unreadable_archive_ends_everything_and_is_named(tmp_path, workers):
    dump(tmp_path / "dump", 6)
    (tmp_path / "dump" / "bad.tar.zst").write_bytes(b"neither zstd nor tar" * 99)
    with pytest.raises(InputRejected, match=r"bad\.tar\.zst"):
        gather(tmp_path / "dump", workers=workers)


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(MissingFile, match="nowhere"):
        gather(tmp_path / "nowhere")


@pytest.mark.parametrize("file", ["task-000000.spill", "raw.f64", "vectors.f32"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_as_such(tmp_path, file):
    path = write_tar(tmp_path / "a.tar", {f"{mbid(i)}-0.json": low(i) for i in range(9)})
    work = tmp_path / "work"
    work.mkdir()
    (work / file).symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="no room left"):
        gather_documents([path], IngestOptions(), work, RejectLog())


def test_nothing_usable_gives_no_rows_and_every_reason(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{mbid(1)}.json": low(1, bpm=0)})
    made, ids, gathered, rejects = gather(path, space="combined")
    assert (made.shape, ids, gathered.recordings.num_rows) == ((0, 67), [], 0)
    assert rejects.counts == {"bpm is 0": 1}


def test_extending_uses_the_statistics_of_the_base(tmp_path):
    folder = dump(tmp_path / "dump")
    base = gather(folder, space="combined")
    few = write_tar(
        tmp_path / "few.tar", {f"{mbid(0)}-0.json": low(8), f"h/{mbid(0)}.json": high(8)}
    )
    geometry = base[2].geometry
    alone = gather(few, base=geometry)
    assert alone[2].geometry == geometry
    assert alone[2].facts["space"] == "combined"
    shutil.copy(few, folder / "few.tar")
    assert np.array_equal(gather(folder, base=geometry)[0][0], alone[0][0])
    with pytest.raises(UsageError, match="combined"):
        gather(few, base=geometry, space="bpm")


def test_a_source_of_documents_is_known_by_its_name(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert not is_document_source(tmp_path)
    (tmp_path / "a" / "b" / "c.tar.xz").touch()
    assert is_document_source(tmp_path)
    assert is_document_source(tmp_path / "x.tar")
    assert is_document_source(tmp_path / "x.json")
    assert not is_document_source(tmp_path / "x.csv.gz")


def test_an_extension_keeps_the_policy_of_submissions(tmp_path):
    folder = dump(tmp_path / "dump")
    median = IngestOptions(
        space="combined", max_rejected=1, documents=DocumentOptions(submissions="median")
    )
    ingest([folder], tmp_path / "base", median)
    plain = IngestOptions(max_rejected=1)
    again = ingest([folder], tmp_path / "again", plain, extend=tmp_path / "base")
    assert (again.facts["changed"], again.facts["submissions_policy"]) == (0, "median")
    lowest = IngestOptions(max_rejected=1, documents=DocumentOptions(submissions="lowest"))
    with pytest.raises(UsageError, match="was made with median"):
        ingest([folder], tmp_path / "other", lowest, extend=tmp_path / "base")


def test_a_choice_about_zero_vectors_means_nothing_for_documents(tmp_path):
    with pytest.raises(UsageError, match="--zero means nothing"):
        ingest([dump(tmp_path / "dump")], tmp_path / "v", IngestOptions(zero="drop"))
