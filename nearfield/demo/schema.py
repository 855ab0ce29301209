"""Writes made-up recordings as AcousticBrainz documents, low- and high-level.

Owns the sections and keys, which are those of the real extractor (music 1.0): about 2,600 numbers
in a low-level document. Most of them nobody reads here; they are filled with noise of two
significant digits instead of twelve, so that a document has about 33 kB instead of 55 and a dump
stays small. Refuses to know where the meaningful numbers come from.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from nearfield.demo.model import GENRES, Recording, Sound
from nearfield.ingest.metrics import Float64s

encode = msgspec.json.encode

STATS = ("dmean", "dmean2", "dvar", "dvar2", "max", "mean", "median", "min", "var")
BANDS = {
    "barkbands": 27, "erbbands": 40, "melbands": 40,
    "spectral_contrast_coeffs": 6, "spectral_contrast_valleys": 6,
}  # fmt: skip
SHAPES = tuple(
    f"{bands}_{shape}"
    for bands in ("barkbands", "erbbands", "melbands")
    for shape in ("crest", "flatness_db", "kurtosis", "skewness", "spread")
)
SCALARS = (
    "dissonance", "hfc", "pitch_salience", "silence_rate_20dB", "silence_rate_30dB",
    "silence_rate_60dB", "spectral_centroid", "spectral_complexity", "spectral_decrease",
    "spectral_energy", "spectral_energyband_high", "spectral_energyband_low",
    "spectral_energyband_middle_high", "spectral_energyband_middle_low", "spectral_entropy",
    "spectral_flux", "spectral_kurtosis", "spectral_rms", "spectral_rolloff", "spectral_skewness",
    "spectral_spread", "spectral_strongpeak", "zerocrossingrate",
)  # fmt: skip
HISTOGRAM = tuple(
    f"bpm_histogram_{peak}_peak_{what}"
    for peak in ("first", "second")
    for what in ("bpm", "spread", "weight")
)
EXPONENTS = ("e-06", "e-04", "e-03", "e-02", "e-01", "e-01", "e+00", "e+01", "e+02")
# models that no metric reads: a document holds 18
OTHER_MODELS = {
    "danceability": ("danceable", "not_danceable"),
    "gender": ("female", "male"),
    "genre_electronic": ("ambient", "dnb", "house", "techno", "trance"),
    "ismir04_rhythm": (
        "ChaChaCha", "Jive", "Quickstep", "Rumba-American", "Rumba-International", "Rumba-Misc",
        "Samba", "Tango", "VienneseWaltz", "Waltz",
    ),
    "moods_mirex": ("Cluster1", "Cluster2", "Cluster3", "Cluster4", "Cluster5"),
    "timbre": ("bright", "dark"),
    "tonal_atonal": ("atonal", "tonal"),
}  # fmt: skip
VERSION = {
    "essentia": "2.1-beta2", "essentia_build_sha": "0" * 40,
    "essentia_git_sha": "v2.1_beta2", "extractor": "music 1.0",
}  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """A place in the template: a number of the noise, or (with a name) something meaningful."""

    noise: int = 0
    name: str = ""


class Template:
    """The text of a low-level document with slots, and which value goes into which slot."""

    def __init__(self) -> None:
        self.noise = 0
        self.names: list[str] = []
        slots: list[Slot] = []
        self.text = b"".join(_written(self._skeleton(), slots))
        places = {name: self.noise + place for place, name in enumerate(self.names)}
        self._pick = itemgetter(*(places.get(slot.name, slot.noise) for slot in slots))

    def filled(self, noise: list[float], named: dict[str, bytes]) -> bytes:
        """The document: `noise` are `self.noise` numbers, `named` JSON text for every name."""
        tokens = encode(noise)[1:-1].split(b",")
        return self.text % self._pick(tokens + [named[name] for name in self.names])

    def _number(self) -> Slot:
        self.noise += 1
        return Slot(noise=self.noise - 1)

    def _named(self, name: str) -> Slot:
        self.names.append(name)
        return Slot(name=name)

    def _stats(self, width: int = 0) -> dict[str, Any]:
        return {
            stat: [self._number() for _ in range(width)] if width else self._number()
            for stat in STATS
        }

    def _matrix(self) -> list[list[Slot]]:
        upper = {(i, j): self._number() for i in range(13) for j in range(i, 13)}
        return [[upper[min(i, j), max(i, j)] for j in range(13)] for i in range(13)]

    def _cepstrum(self, name: str) -> dict[str, Any]:
        return {"cov": self._matrix(), "icov": self._matrix(), "mean": self._named(name)}

    def _skeleton(self) -> dict[str, Any]:
        lowlevel: dict[str, Any] = {
            "average_loudness": self._number(),
            "dynamic_complexity": self._number(),
            "gfcc": self._cepstrum("gfcc"),
            "mfcc": self._cepstrum("mfcc"),
        }
        lowlevel |= {name: self._stats(width) for name, width in BANDS.items()}
        lowlevel |= {name: self._stats() for name in (*SHAPES, *SCALARS)}
        rhythm: dict[str, Any] = {
            name: self._named(name)
            for name in ("beats_count", "beats_position", "bpm", "danceability", "onset_rate")
        }
        rhythm |= {"beats_loudness": self._stats(), "beats_loudness_band_ratio": self._stats(6)}
        rhythm |= {name: self._stats() for name in HISTOGRAM}
        tonal: dict[str, Any] = {
            name: self._named(name)
            for name in ("chords_key", "chords_scale", "key_key", "key_scale", "key_strength")
        }
        tonal |= {name: self._number() for name in (
            "chords_changes_rate", "chords_number_rate", "tuning_diatonic_strength",
            "tuning_equal_tempered_deviation", "tuning_frequency",
            "tuning_nontempered_energy_ratio")}  # fmt: skip
        tonal |= {"chords_strength": self._stats(), "hpcp_entropy": self._stats()}
        tonal |= {
            "chords_histogram": [self._number() for _ in range(24)],
            "hpcp": self._stats(36),
            "thpcp": [self._number() for _ in range(36)],
        }
        return {
            "lowlevel": lowlevel, "metadata": self._named("metadata"),
            "rhythm": rhythm, "tonal": tonal,
        }  # fmt: skip


def _written(node: Any, slots: list[Slot]) -> Iterator[bytes]:
    if isinstance(node, Slot):
        slots.append(node)
        yield b"%b" if node.name else b"%b" + EXPONENTS[node.noise % len(EXPONENTS)].encode()
        return
    keys = list(node) if isinstance(node, dict) else [None] * len(node)
    values = list(node.values()) if isinstance(node, dict) else node
    yield b"{" if isinstance(node, dict) else b"["
    for place, (key, value) in enumerate(zip(keys, values, strict=True)):
        yield b", " if place else b""
        yield b'"%b": ' % key.encode() if key else b""
        yield from _written(value, slots)
    yield b"}" if isinstance(node, dict) else b"]"


TEMPLATE = Template()


def noise(rng: np.random.Generator, count: int) -> Float64s:
    """Numbers [count, noise] for as many low-level documents: positive, of uneven size."""
    drawn: Float64s = np.exp(rng.normal(0.5, 0.6, size=(count, TEMPLATE.noise)))
    return drawn.round(1)


def low_level(mbid: str, recording: Recording, sound: Sound, filling: Float64s) -> bytes:
    """The low-level document of one submission."""
    beats = np.round(np.arange(0.4, sound.length, 60 / sound.bpm), 3).tolist()
    named = {
        "mfcc": encode(np.round(sound.mfcc, 7).tolist()),
        "gfcc": encode(np.round(sound.gfcc, 7).tolist()),
        "beats_count": encode(len(beats)),
        "beats_position": encode(beats),
        "bpm": encode(round(sound.bpm, 7)),
        "danceability": encode(round(0.6 + sound.onset_rate / 10, 7)),
        "onset_rate": encode(round(sound.onset_rate, 9)),
        "chords_key": encode(sound.key),
        "chords_scale": encode(sound.scale),
        "key_key": encode(sound.key),
        "key_scale": encode(sound.scale),
        "key_strength": b"0.6",
        "metadata": encode(_metadata(mbid, recording, sound, VERSION)),
    }
    return TEMPLATE.filled(filling.tolist(), named)


def high_level(mbid: str, recording: Recording, sound: Sound, lacking: str = "") -> bytes:
    """The high-level document of one submission, without the model `lacking`."""
    models = sound.models | {
        name: {label: round(1 / len(labels), 12) for label in labels}
        for name, labels in OTHER_MODELS.items()
    }
    version = {"highlevel": VERSION | {"gaia": "2.4-dev"}, "lowlevel": VERSION}
    document = {
        "highlevel": {name: _model(models[name]) for name in sorted(models) if name != lacking},
        "metadata": _metadata(mbid, recording, sound, version),
    }
    return encode(document)


def _model(chances: dict[str, float]) -> dict[str, Any]:
    value = max(chances, key=chances.__getitem__)
    rounded = {label: round(chance, 12) for label, chance in chances.items()}
    return {
        "all": rounded, "probability": rounded[value], "value": value,
        "version": {"essentia": "2.1-beta1", "extractor": "music 1.0", "models": "v2.1_beta1"},
    }  # fmt: skip


def _metadata(
    mbid: str, recording: Recording, sound: Sound, version: dict[str, Any]
) -> dict[str, Any]:
    return {
        "audio_properties": {
            "analysis_sample_rate": 44100, "bit_rate": 256000, "codec": "mp3", "downmix": "mix",
            "equal_loudness": 0, "length": round(sound.length, 6), "lossless": False,
            "md5_encoded": hashlib.md5(mbid.encode(), usedforsecurity=False).hexdigest(),
            "replay_gain": -9.4, "sample_rate": 44100,
        },
        "tags": {
            "album": [recording.album], "artist": [recording.artist],
            "date": [str(recording.year)],
            "file_name": f"{recording.artist} - {recording.title}.mp3",
            "genre": [GENRES[recording.genre].name],
            "musicbrainz_recordingid": [mbid], "title": [recording.title],
        },
        "version": version,
    }  # fmt: skip
