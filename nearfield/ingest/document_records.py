"""One AcousticBrainz document to records: the few numbers and labels that nearfield needs.

Owns the schema of documents, the names of members, and what is wrong with a document. Decoding is
typed: the parser skips the other 2,500 numbers without making objects of them. Refuses to decide
whether a record is usable, since that depends on the space: it only notes the flaws.

A document is low- or high-level by what it contains, whatever its folder is called.
"""

import re
import struct
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from nearfield.ingest.metrics import (
    CEPSTRAL,
    HIGH_NUMBERS,
    LOW_NUMBERS,
    MODELS,
    key_position,
    octave_position,
)

LABELS = ("title", "artist", "album", "genre")
LABEL_CHARACTERS = 1000
UNNUMBERED: Final = -1
LOW: Final = 0
HIGH: Final = 1
PLAUSIBLE_CEPSTRAL = 1e6
SLACK = 1e-3
"""Of a probability, beyond 0 and 1."""
NAN = float("nan")
NAMED = re.compile(
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?:-(\d{1,9}))?(?:\.json)?",
    re.IGNORECASE,
)

Flaw = tuple[str, str]  # reason, detail


class Unusable(Exception):
    """A document that gives no record at all; `args` are the reason and the detail."""


class Record(msgspec.Struct, array_like=True, gc=False):
    """What one document says about one submission.

    `recording` is the UUID's 16 bytes; `numbers` float64 in the raw layout of the metrics, NaN
    where flawed; `flaws` maps a metric to what is wrong. `broken` marks a document that was
    rejected already, so that the gap it leaves isn't reported a second time.
    """

    recording: bytes
    offset: int
    level: int = LOW
    numbers: bytes = b""
    labels: tuple[str | None, ...] = ()
    flaws: dict[str, Flaw] = {}
    broken: bool = False


class _Cepstrum(msgspec.Struct):
    mean: list[float] | None = None


class _LowLevel(msgspec.Struct):
    mfcc: _Cepstrum | None = None
    gfcc: _Cepstrum | None = None


class _Rhythm(msgspec.Struct):
    bpm: float | None = None
    onset_rate: float | None = None


class _Tonal(msgspec.Struct):
    key_key: str | None = None
    key_scale: str | None = None


class _Model(msgspec.Struct):
    all: dict[str, float] | None = None


class _Tags(msgspec.Struct):
    # tags are free text by users: any type may come, and a strange one costs only the label
    title: Any = None
    artist: Any = None
    album: Any = None
    genre: Any = None
    musicbrainz_recordingid: Any = None


class _Metadata(msgspec.Struct):
    tags: _Tags | None = None


class _Document(msgspec.Struct):
    lowlevel: _LowLevel | None = None
    rhythm: _Rhythm | None = None
    tonal: _Tonal | None = None
    highlevel: dict[str, _Model] | None = None
    metadata: _Metadata | None = None


_decode = msgspec.json.Decoder(_Document).decode
_pack_low = struct.Struct(f"<{LOW_NUMBERS}d").pack
_pack_high = struct.Struct(f"<{HIGH_NUMBERS}d").pack


def named_submission(name: str) -> tuple[bytes, int] | None:
    """UUID bytes and offset from a member's base name; `<uuid>.json` is offset 0; else None."""
    found = NAMED.fullmatch(name.rpartition("/")[2])
    if not found:
        return None
    return bytes.fromhex(found[1].replace("-", "")), int(found[2] or 0)


def read_document(name: str, content: bytes) -> list[Record]:
    """The records of a document: one, or two where one file holds both levels.

    The recording comes from the member's name, else (with offset `UNNUMBERED`) from the tag
    `musicbrainz_recordingid`. Raises `Unusable`. Of a repeated JSON key the last one counts.
    """
    document = _decoded(content)
    has_low = document.lowlevel or document.rhythm or document.tonal
    if not has_low and document.highlevel is None:
        raise Unusable("no AcousticBrainz document", "neither lowlevel nor highlevel in it")
    tags = (document.metadata and document.metadata.tags) or _Tags()
    submission = named_submission(name) or _tagged_submission(tags)
    labels = tuple(_label(value) for value in (tags.title, tags.artist, tags.album, tags.genre))
    records = []
    if has_low:
        numbers, flaws = _low_numbers(document)
        records.append(Record(*submission, LOW, numbers, labels, flaws))
    if document.highlevel is not None:
        numbers, flaws = _high_numbers(document.highlevel)
        records.append(Record(*submission, HIGH, numbers, labels, flaws))
    return records


def _decoded(content: bytes) -> _Document:
    try:
        return _decode(content)
    except msgspec.ValidationError as error:
        out_of_range = "out of range" in str(error)
        raise Unusable("not finite" if out_of_range else "wrong type", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable("not JSON", str(error)) from error
    except RecursionError as error:
        raise Unusable("too deep", "brackets nested beyond the parser's limit") from error


def _tagged_submission(tags: _Tags) -> tuple[bytes, int]:
    text = _label(tags.musicbrainz_recordingid) or ""
    submission = named_submission(text)
    if submission is None:
        raise Unusable("no recording id", f"neither in the name nor in the tags ({text!r})"[:200])
    return submission[0], UNNUMBERED


def _label(value: Any) -> str | None:
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str):
        return None
    # Postgres can't store NUL in a text
    return first[:LABEL_CHARACTERS].replace("\0", "").strip() or None


def _low_numbers(document: _Document) -> tuple[bytes, dict[str, Flaw]]:
    lowlevel = document.lowlevel or _LowLevel()
    rhythm = document.rhythm or _Rhythm()
    flaws: dict[str, Flaw] = {}
    numbers = (
        *_cepstral(lowlevel.mfcc, "mfcc", flaws),
        *_cepstral(lowlevel.gfcc, "gfcc", flaws),
        _key(document.tonal or _Tonal(), flaws),
        _octaves(rhythm.bpm, ("bpm", "bpm"), flaws),
        _octaves(rhythm.onset_rate, ("onsetrate", "onset rate"), flaws),
    )
    return _pack_low(*numbers), flaws


def _cepstral(cepstrum: _Cepstrum | None, name: str, flaws: dict[str, Flaw]) -> list[float]:
    mean = (cepstrum and cepstrum.mean) or []
    if len(mean) != CEPSTRAL:
        flaw = (f"no {name}", f"{len(mean)} numbers where {CEPSTRAL} belong" if mean else "")
    elif max(mean) > PLAUSIBLE_CEPSTRAL or min(mean) < -PLAUSIBLE_CEPSTRAL:
        # a single such value would swamp the statistics of everyone
        flaw = (f"{name} out of range", f"{max(mean, key=abs):g}")
    else:
        return mean
    flaws[f"{name}s"] = flaws[f"{name}sw"] = flaw
    return [NAN] * CEPSTRAL


def _key(tonal: _Tonal, flaws: dict[str, Flaw]) -> float:
    if tonal.key_key is None or tonal.key_scale is None:
        flaws["key"] = ("no key", "")
        return NAN
    position = key_position(tonal.key_key, tonal.key_scale)
    if position is None:
        flaws["key"] = ("unknown key", f"{tonal.key_key} {tonal.key_scale}"[:100])
        return NAN
    return position


def _octaves(value: float | None, names: tuple[str, str], flaws: dict[str, Flaw]) -> float:
    metric, spoken = names
    if value is not None and value > 0:
        return octave_position(value)
    flaws[metric] = (f"no {spoken}", "") if value is None else (f"{spoken} is 0", f"{value:g}")
    return NAN


def _high_numbers(models: dict[str, _Model]) -> tuple[bytes, dict[str, Flaw]]:
    numbers: list[float] = []
    flaws: dict[str, Flaw] = {}
    for metric, classes in MODELS.items():
        try:
            found = [models[model].all[name] for model, name in classes]  # type: ignore[index]
        except (KeyError, TypeError):
            found = [NAN] * len(classes)
            flaws[metric] = next(_missing(models, metric))
        else:
            # a single such value would swamp the scale of everyone
            strange = next((i for i, p in enumerate(found) if not -SLACK <= p <= 1 + SLACK), None)
            if strange is not None:
                flaws[metric] = f"{classes[strange][0]} out of range", f"{found[strange]:g}"
                found = [NAN] * len(classes)
        numbers += found
    return _pack_high(*numbers), flaws


def _missing(models: dict[str, _Model], metric: str) -> Iterator[Flaw]:
    for model, name in MODELS[metric]:
        found = models.get(model)
        if found is None or found.all is None:
            yield f"no model {model}", ""
        elif name not in found.all:
            yield f"no model {model}", f"it lacks the class {name}"
