"""Real AcousticBrainz documents: the McGill Billboard archive and the server's own test data."""

import json
import math
import shutil

import numpy as np
import pytest
import zstandard

from tests.ingest.document_samples import gather


def real_documents(archive):
    """All documents of the archive, by another route: `zstandard` at once, `tarfile`, `json`."""
    import io
    import tarfile

    with archive.open("rb") as file:
        plain = zstandard.ZstdDecompressor().stream_reader(file).read()
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return [json.load(tar.extractfile(member)) for member in tar]


@pytest.fixture(scope="module")
def billboard(real_data):
    return real_data / "billboard-acousticbrainz" / "lowlevel-json.tar.zst"


def test_560_billboard_documents_are_469_recordings(billboard):
    documents = real_documents(billboard)
    named = [document["metadata"]["tags"]["musicbrainz_recordingid"][0] for document in documents]
    made, ids, gathered, rejects = gather(billboard)
    assert ids == sorted(set(named))
    assert (len(named), len(ids), made.shape) == (560, 469, (469, 32))
    assert rejects.total == 0
    assert gathered.facts["documents"] == {"low-level": 560, "high-level": 0}
    assert gathered.facts["submissions_folded"] == 91
    assert gathered.facts["space"] == "lowlevel"
    # the files are named by song, so the same document comes once per song that uses it
    repeated = {json.dumps(document) for document in documents}
    assert len(repeated) == 469


def test_billboard_numbers_by_independent_arithmetic(billboard):
    by_id = {
        document["metadata"]["tags"]["musicbrainz_recordingid"][0]: document
        for document in real_documents(billboard)
    }
    made, ids, gathered, _ = gather(billboard, space="lowlevel")
    column = [by_id[one]["lowlevel"]["mfcc"]["mean"][3] for one in ids]
    mean = math.fsum(column) / len(column)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in column) / len(column))
    expected = [(x - mean) / deviation / math.sqrt(13) for x in column]
    assert made[:, 3].tolist() == pytest.approx(expected, abs=1e-5)
    turns = [math.log2(by_id[one]["rhythm"]["onset_rate"]) for one in ids]
    assert made[:, 31].tolist() == pytest.approx(
        [math.sin(2 * math.pi * turn) for turn in turns], abs=1e-5
    )
    titles = gathered.recordings["title"].to_pylist()
    assert titles == [by_id[one]["metadata"]["tags"]["title"][0].strip() for one in ids]


def test_the_servers_document_and_its_high_level_twin_give_its_check_values(real_data, tmp_path):
    folder = real_data / "acousticbrainz-docs-misc"
    mbid = "0dad432b-16cc-4bf0-8961-fd31d124b01b"
    shutil.copy(folder / f"server__{mbid}.json", tmp_path / f"{mbid}-0.json")
    (tmp_path / "high").mkdir()
    shutil.copy(folder / f"server__{mbid}_highlevel.json", tmp_path / "high" / f"{mbid}-0.json")
    whole, ids, _, rejects = gather(tmp_path, space="combined")
    assert (whole.shape, ids, rejects.total) == ((1, 67), [mbid], 0)
    parts = [gather(tmp_path, space=space)[0][0] for space in ("bpm", "onsetrate", "key")]
    assert np.concatenate(parts) == pytest.approx(
        [0.69130100, 0.72256690, 0.82319608, 0.56775717, 0.5, 0.8660254], abs=1e-7
    )
    moods = gather(tmp_path, space="moods")[0][0]
    assert moods == pytest.approx(
        [0.0581060945988, 0.953247070312, 0.0500397793949, 0.995198726654, 0.0156338009983]
    )
