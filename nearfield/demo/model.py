"""The seeded model behind the demo: genres, artists of a genre, recordings of an artist.

Owns every number that carries meaning, so that near neighbours mostly share artist and genre.
Three levels add up: a genre's centre, an artist's deviation, a recording's own. Refuses to know
how a document is written. No number comes from real recordings; scales are round figures of the
size that the extractor gives.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nearfield.demo.names import artist_names, title
from nearfield.ingest.metrics import FIFTHS, MODELS, Float64s

RECORDINGS_PER_ARTIST = 25
CEPSTRAL_CENTRE = {
    "mfcc": (-690, 130, -4, 23, 2, 6, -1, 3, -3, 1, -2, -1, -2),
    "gfcc": (-47, 97, -110, 24, -48, 4, -29, 1, -19, -3, -12, -3, -10),
}
CEPSTRAL_SPREAD = {
    "mfcc": (45, 32, 17, 11, 8, 9, 6, 5, 5, 4, 4, 3, 3),
    "gfcc": (42, 29, 23, 19, 19, 14, 15, 11, 9, 6, 6, 5, 4),
}
GENRE_SHARE, ARTIST_SHARE, RECORDING_SHARE, SUBMISSION_SHARE = 0.4, 0.55, 0.75, 0.03
ALBUMS_PER_ARTIST = 4


@dataclass(frozen=True)
class Genre:
    """What a genre tends to: classes of the three genre models, tempo, minor keys, moods.

    `leanings`: happy, sad, aggressive, relaxed, party, acoustic, electronic, instrumental, each as
    the probability in the middle of the genre.
    """

    name: str
    classes: tuple[str, str, str]
    bpm: float
    minor: float
    leanings: tuple[float, ...]


GENRES = (
    Genre("Rock", ("rock", "roc", "roc"), 122, 0.35,
          (0.4, 0.3, 0.5, 0.2, 0.4, 0.1, 0.3, 0.2)),
    Genre("Pop", ("pop", "pop", "pop"), 116, 0.3,
          (0.6, 0.3, 0.1, 0.3, 0.6, 0.3, 0.5, 0.1)),
    Genre("Jazz", ("jazz", "jaz", "jaz"), 104, 0.45,
          (0.4, 0.4, 0.03, 0.7, 0.2, 0.8, 0.1, 0.8)),
    Genre("Classical", ("folkcountry", "cla", "cla"), 88, 0.4,
          (0.1, 0.7, 0.02, 0.9, 0.02, 0.97, 0.02, 0.95)),
    Genre("Hip Hop", ("raphiphop", "hip", "hip"), 92, 0.6,
          (0.5, 0.1, 0.4, 0.1, 0.8, 0.1, 0.6, 0.1)),
    Genre("Electronic", ("electronic", "dan", "dis"), 126, 0.6,
          (0.3, 0.2, 0.4, 0.3, 0.8, 0.03, 0.95, 0.7)),
    Genre("Metal", ("alternative", "roc", "met"), 138, 0.7,
          (0.1, 0.2, 0.95, 0.02, 0.3, 0.01, 0.3, 0.4)),
    Genre("Folk", ("folkcountry", "rhy", "cou"), 100, 0.3,
          (0.3, 0.6, 0.02, 0.8, 0.1, 0.9, 0.05, 0.3)),
    Genre("Blues", ("blues", "rhy", "blu"), 98, 0.5,
          (0.4, 0.5, 0.1, 0.5, 0.3, 0.6, 0.1, 0.3)),
    Genre("Reggae", ("funksoulrnb", "hip", "reg"), 76, 0.4,
          (0.7, 0.1, 0.1, 0.4, 0.7, 0.3, 0.3, 0.2)),
    Genre("Soul", ("funksoulrnb", "rhy", "jaz"), 108, 0.4,
          (0.6, 0.4, 0.05, 0.5, 0.5, 0.4, 0.2, 0.1)),
    Genre("Spoken Word", ("raphiphop", "spe", "hip"), 84, 0.5,
          (0.3, 0.3, 0.2, 0.5, 0.1, 0.6, 0.2, 0.02)),
)  # fmt: skip


@dataclass(frozen=True)
class Sound:
    """What one submission's analysis measured, apart from the numbers that nobody reads."""

    mfcc: Float64s
    gfcc: Float64s
    bpm: float
    onset_rate: float
    key: str
    scale: str
    length: float
    models: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Recording:
    """A made-up recording: names and what was heard in each of its submissions."""

    genre: int
    artist: str
    title: str
    album: str
    year: int
    submissions: tuple[Sound, ...]


@dataclass(frozen=True)
class Catalogue:
    """Genres and artists, the same for every part of the dump. Latent numbers are in deviations."""

    artists: list[str]
    genre_of: np.ndarray
    genre_centres: Float64s
    artist_offsets: Float64s


LATENT = 26 + 8 + 3  # cepstra, leanings, and the firmness of the three genre models


def catalogue(recordings: int, seed: int) -> Catalogue:
    """The artists for a dump of so many recordings."""
    rng = np.random.default_rng([seed, 0])
    artists = max(1, recordings // RECORDINGS_PER_ARTIST)
    return Catalogue(
        artists=artist_names(artists, rng),
        genre_of=rng.integers(len(GENRES), size=artists),
        genre_centres=rng.normal(size=(len(GENRES), LATENT)),
        artist_offsets=rng.normal(size=(artists, LATENT)),
    )


def recordings(catalogue: Catalogue, count: int, rng: np.random.Generator) -> Iterator[Recording]:
    """`count` recordings; artists are uneven (the k-th about 1/sqrt(k) as often as the first)."""
    popularity = 1 / np.sqrt(np.arange(1, len(catalogue.artists) + 1))
    chosen = rng.choice(len(popularity), size=count, p=popularity / popularity.sum())
    for artist in chosen:
        yield _recording(catalogue, int(artist), rng)


def _recording(catalogue: Catalogue, artist: int, rng: np.random.Generator) -> Recording:
    genre = int(catalogue.genre_of[artist])
    latent = (
        GENRE_SHARE * catalogue.genre_centres[genre]
        + ARTIST_SHARE * catalogue.artist_offsets[artist]
        + RECORDING_SHARE * rng.normal(size=LATENT)
    )
    first = _sound(GENRES[genre], latent, rng)
    copies = int(rng.choice(3, p=(0.88, 0.09, 0.03)))
    return Recording(
        genre=genre,
        artist=catalogue.artists[artist],
        title=title(rng),
        album=title(np.random.default_rng([artist, int(rng.integers(ALBUMS_PER_ARTIST))])),
        year=int(rng.integers(1955, 2022)),
        submissions=(first, *(_again(first, genre, latent, rng) for _ in range(copies))),
    )


def _sound(genre: Genre, latent: Float64s, rng: np.random.Generator) -> Sound:
    minor = rng.random() < genre.minor
    tempo = genre.bpm * np.exp(0.12 * latent[26] + 0.08 * rng.normal())
    step = int(np.clip(np.round(rng.normal(1, 2.2)), -5, 6))
    return Sound(
        mfcc=_cepstrum("mfcc", latent[:13]),
        gfcc=_cepstrum("gfcc", latent[13:26]),
        bpm=float(tempo),
        onset_rate=float(np.exp(1.2 + 0.3 * latent[28] + 0.1 * rng.normal())),
        key=FIFTHS[(step + 3 * minor) % 12],
        scale="minor" if minor else "major",
        length=float(rng.uniform(120, 330)),
        models=_models(genre, latent, rng),
    )


def _again(first: Sound, genre: int, latent: Float64s, rng: np.random.Generator) -> Sound:
    """The same recording from another file: nearly the same numbers."""
    moved = latent + SUBMISSION_SHARE * rng.normal(size=LATENT)
    return Sound(
        mfcc=_cepstrum("mfcc", moved[:13]),
        gfcc=_cepstrum("gfcc", moved[13:26]),
        bpm=first.bpm * float(np.exp(0.001 * rng.normal())),
        onset_rate=first.onset_rate * float(np.exp(0.01 * rng.normal())),
        key=first.key,
        scale=first.scale,
        length=first.length + float(rng.normal()),
        models=_models(GENRES[genre], moved, rng),
    )


def _cepstrum(name: str, latent: Float64s) -> Float64s:
    return np.asarray(CEPSTRAL_CENTRE[name] + latent * CEPSTRAL_SPREAD[name])


def _models(
    genre: Genre, latent: Float64s, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    models: dict[str, dict[str, float]] = {}
    leaning = np.array(genre.leanings)
    chances = 1 / (1 + (1 / leaning - 1) * np.exp(-1.2 * latent[26:34]))
    binary = (*MODELS["moods"], *MODELS["instruments"])
    for (model, label), chance in zip(binary, chances.tolist(), strict=True):
        other = "voice" if label == "instrumental" else f"not_{label}"
        models[model] = {label: chance, other: 1 - chance}
    for place, (metric, favourite) in enumerate(
        zip(("dortmund", "rosamerica", "tzanetakis"), genre.classes, strict=True)
    ):
        labels = [label for _, label in MODELS[metric]]
        scores = np.exp(0.9 * rng.normal(size=len(labels)))
        scores[labels.index(favourite)] *= np.exp(1.2 + latent[34 + place])
        shares = (scores / scores.sum()).tolist()
        models[f"genre_{metric}"] = dict(zip(labels, shares, strict=True))
    return models
