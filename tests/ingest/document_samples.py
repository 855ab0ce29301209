"""Small documents and archives for the tests, written with the standard library only."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tempfile
import uuid
from pathlib import Path

import numpy as np
import zstandard

from nearfield.ingest.documents import gather_documents
from nearfield.ingest.options import DocumentOptions, IngestOptions
from nearfield.ingest.rejects import RejectLog

COMPRESS = {
    "": lambda data: data,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".gz": gzip.compress,
}
CLASSES = {
    "genre_dortmund": (
        "rock alternative blues electronic folkcountry funksoulrnb jazz pop raphiphop"
    ),
    "genre_rosamerica": "spe cla dan hip jaz pop rhy roc",
    "genre_tzanetakis": "roc blu cla cou dis hip jaz met pop reg",
    "mood_happy": "happy not_happy",
    "mood_sad": "sad not_sad",
    "mood_aggressive": "aggressive not_aggressive",
    "mood_relaxed": "relaxed not_relaxed",
    "mood_party": "party not_party",
    "mood_acoustic": "acoustic not_acoustic",
    "mood_electronic": "electronic not_electronic",
    "voice_instrumental": "instrumental voice",
    "timbre": "bright dark",
}


def mbid(number: int) -> str:
    """The number-th recording; ascending numbers give ascending ids, spread over the buckets."""
    return str(uuid.UUID(int=(number << 122) + number, version=4))


def low(seed: int = 0, **changes) -> dict:
    """A low-level document; `changes` as `mfcc=...`, `bpm=...`, `key=...`, `tags=...`."""
    rng = np.random.default_rng(seed)
    given = {
        "mfcc": rng.normal(0, 30, 13).tolist(),
        "gfcc": rng.normal(0, 20, 13).tolist(),
        "bpm": float(rng.uniform(60, 180)),
        "onset_rate": float(rng.uniform(1, 6)),
        "key": "A#",
        "scale": "minor",
        "tags": {"title": [f"title {seed}"], "artist": ["somebody"], "genre": ["Rock", "Pop"]},
    } | changes
    return {
        "lowlevel": {
            "mfcc": {"cov": [[1.0] * 13] * 13, "mean": given["mfcc"]},
            "gfcc": {"mean": given["gfcc"], "icov": [[2.0] * 13] * 13},
            "spectral_centroid": {"mean": 4.4e18},
        },
        "rhythm": {"bpm": given["bpm"], "onset_rate": given["onset_rate"], "beats_count": 3},
        "tonal": {"key_key": given["key"], "key_scale": given["scale"], "hpcp": {"mean": [0, 1]}},
        "metadata": {"tags": given["tags"], "version": {"extractor": "music 1.0"}},
    }


def high(seed: int = 0, without: str = "") -> dict:
    """A high-level document, perhaps `without` one model."""
    rng = np.random.default_rng(1000 + seed)
    models = {}
    for model, names in CLASSES.items():
        chances = rng.dirichlet(np.ones(len(names.split())))
        models[model] = {"all": dict(zip(names.split(), chances.tolist(), strict=True))}
    models.pop(without, None)
    return {"highlevel": models, "metadata": {"tags": {"title": ["high"], "album": "only here"}}}


def tar_bytes(members: dict[str, object], **options) -> bytes:
    """A tar of files; a value is a document, or bytes to be taken as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, content in members.items():
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, object]) -> Path:
    """Write an archive, compressed as its suffix says."""
    suffix = path.suffix if path.suffix in COMPRESS else ""
    path.write_bytes(COMPRESS[suffix](tar_bytes(members)))
    return path


def gather(*sources: Path, policy: str = "lowest", first: int = 0, **options):
    """Ingest documents; returns (vectors in memory, ids, gathered, rejects)."""
    rejects = RejectLog()
    documents = DocumentOptions(submissions=policy, first_cepstral=first)
    with tempfile.TemporaryDirectory() as work:
        gathered = gather_documents(
            sources, IngestOptions(documents=documents, **options), Path(work), rejects
        )
        vectors = np.array(gathered.vectors)
    return vectors, gathered.recordings["recording_id"].to_pylist(), gathered, rejects
