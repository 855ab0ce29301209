"""The twelve AcousticBrainz metrics: from raw numbers of documents to the columns of a vector set.

Owns the raw layout (64 numbers per submission), the names and weights of spaces, the statistics
and the transform. Refuses to read documents.

A raw row is float64 [64]: mfcc 13, gfcc 13, then key, bpm and onset rate as positions on their
circle (in turns, any integer part), then the class probabilities of the high-level models; NaN
where a document lacked it. A *combination* scales each block to an expected squared norm of 1 over
the recordings and multiplies it by its weight, so a block of weight w contributes w² times as much
to squared distances as one of weight 1. A *single* metric keeps the server's numbers.
Source of the metrics: metabrainz/acousticbrainz-server, similarity/metrics.py.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nearfield.errors import UsageError
from nearfield.space import Block, Float32s
from nearfield.vectorset import Geometry

Float64s = NDArray[np.float64]
Level = Literal["low-level", "high-level"]
Kind = Literal["cepstral", "weighted cepstral", "circle", "probabilities"]

MODELS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "moods": tuple((f"mood_{mood}", mood) for mood in
                   ("happy", "sad", "aggressive", "relaxed", "party")),
    "instruments": (
        ("mood_acoustic", "acoustic"),
        ("mood_electronic", "electronic"),
        ("voice_instrumental", "instrumental"),
    ),
    "dortmund": tuple(("genre_dortmund", name) for name in (
        "alternative", "blues", "electronic", "folkcountry", "funksoulrnb",
        "jazz", "pop", "raphiphop", "rock")),
    "rosamerica": tuple(("genre_rosamerica", name) for name in
                        ("cla", "dan", "hip", "jaz", "pop", "rhy", "roc", "spe")),
    "tzanetakis": tuple(("genre_tzanetakis", name) for name in (
        "blu", "cla", "cou", "dis", "hip", "jaz", "met", "pop", "reg", "roc")),
}  # fmt: skip

CEPSTRAL = 13
FADE = 0.95 ** np.arange(CEPSTRAL)
FIFTHS = ("C", "G", "D", "A", "E", "B", "F#", "C#", "G#", "D#", "A#", "F")
FLATS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#"}
MINOR_SHIFT = {"major": 0, "minor": -3}


@dataclass(frozen=True)
class Metric:
    """One metric: its name, the level that it needs, its raw columns, and how they are read."""

    name: str
    level: Level
    kind: Kind
    start: int
    stop: int

    def columns(self, first_cepstral: int) -> slice:
        """The raw columns that take part."""
        dropped = first_cepstral if "cepstral" in self.kind else 0
        return slice(self.start + dropped, self.stop)

    def width(self, first_cepstral: int) -> int:
        """Numbers in the vector."""
        if self.kind == "circle":
            return 2
        columns = self.columns(first_cepstral)
        return int(columns.stop - columns.start)


def _metrics() -> tuple[Metric, ...]:
    low: tuple[tuple[str, Kind, int, int], ...] = (
        ("mfccs", "cepstral", 0, 13),
        ("mfccsw", "weighted cepstral", 0, 13),
        ("gfccs", "cepstral", 13, 26),
        ("gfccsw", "weighted cepstral", 13, 26),
        ("key", "circle", 26, 27),
        ("bpm", "circle", 27, 28),
        ("onsetrate", "circle", 28, 29),
    )
    metrics = [Metric(name, "low-level", kind, start, stop) for name, kind, start, stop in low]
    start = LOW_NUMBERS
    for name, classes in MODELS.items():
        stop = start + len(classes)
        metrics.append(Metric(name, "high-level", "probabilities", start, stop))
        start = stop
    return tuple(metrics)


LOW_NUMBERS = 29
HIGH_NUMBERS = sum(len(classes) for classes in MODELS.values())
RAW_NUMBERS = LOW_NUMBERS + HIGH_NUMBERS
METRICS = {metric.name: metric for metric in _metrics()}
CIRCLES = slice(2 * CEPSTRAL, LOW_NUMBERS)

COMBINATIONS: Mapping[str, tuple[str, ...]] = {
    "combined": tuple(name for name in METRICS if name not in ("mfccsw", "gfccsw")),
    "all": tuple(METRICS),
    "timbre": ("mfccs", "gfccs"),
    "lowlevel": ("mfccs", "gfccs", "key", "bpm", "onsetrate"),
    "highlevel": tuple(MODELS),
}


@dataclass(frozen=True)
class MetricSpace:
    """A choice of metrics. `weights` in the order of the table; `scaled` unless it is a single."""

    name: str
    weights: tuple[tuple[str, float], ...]
    scaled: bool
    first_cepstral: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics in the order of their blocks."""
        return tuple(METRICS[name] for name, _ in self.weights)

    @property
    def d(self) -> int:
        """Numbers per vector."""
        return sum(metric.width(self.first_cepstral) for metric in self.metrics)

    def blocks(self) -> tuple[Block, ...]:
        """Where each metric lies in the vector."""
        blocks, start = [], 0
        for name, weight in self.weights:
            stop = start + METRICS[name].width(self.first_cepstral)
            blocks.append(Block(name, start, stop, weight, METRICS[name].kind == "circle"))
            start = stop
        return tuple(blocks)


def metric_space(text: str, first_cepstral: int = 0) -> MetricSpace:
    """The space of a name (`bpm`, `combined`, ...) or of weights (`mfccs=2,bpm=1`).

    Raises `UsageError` for an unknown metric, a repeated one, or a weight that isn't above 0.
    """
    if text in METRICS:
        return MetricSpace(text, ((text, 1.0),), scaled=False, first_cepstral=first_cepstral)
    if text in COMBINATIONS:
        weights = dict.fromkeys(COMBINATIONS[text], 1.0)
    else:
        weights = _parsed_weights(text)
    ordered = tuple((name, weights[name]) for name in METRICS if name in weights)
    return MetricSpace(text, ordered, scaled=True, first_cepstral=first_cepstral)


def key_position(key: str, scale: str) -> float | None:
    """Turns on the circle of fifths, relative minor on its major; None for an unknown key."""
    sharp = FLATS.get(key, key)
    if sharp not in FIFTHS or scale not in MINOR_SHIFT:
        return None
    return (FIFTHS.index(sharp) + MINOR_SHIFT[scale]) % 12 / 12


def octave_position(frequency: float) -> float:
    """Turns on a circle on which doubling is one turn (60 = 120 = 240); `frequency` > 0."""
    return math.log2(frequency)


def circular_medoid(turns: Float64s) -> float:
    """The value out of `turns` [m] with the least summed distance to the others on the circle.

    Ties go to the first. Always one of the values, hence always on the circle.
    """
    apart = np.abs(turns[:, None] - turns[None, :]) % 1.0
    return float(turns[np.argmin(np.minimum(apart, 1 - apart).sum(axis=1))])


def fitted(raw: Float64s, space: MetricSpace, block_rows: int = 65_536) -> Geometry:
    """Geometry with the statistics of all rows of `raw` [n, 64] (no sample, so no seed).

    Means, then population deviations, then block scales: three passes over the columns in use, in
    blocks of `block_rows`, always in row order, so equal data gives equal statistics.
    """
    statistics: dict[str, Any] = {
        "input": "acousticbrainz",
        "space": space.name,
        "first_cepstral": space.first_cepstral,
        "fitted_to": len(raw),
        "cepstral": {
            metric.name: _standard(raw[:, metric.columns(space.first_cepstral)], block_rows)
            for metric in space.metrics
            if "cepstral" in metric.kind
        },
        "classes": {
            name: [f"{model}.{label}" for model, label in MODELS[name]]
            for name, _ in space.weights
            if name in MODELS
        },
    }
    if space.scaled:
        statistics["scales"] = _scales(raw, space, statistics, block_rows)
    return Geometry(space="l2", blocks=space.blocks(), statistics=statistics)


def space_of(geometry: Geometry, asked: str | None, first_cepstral: int) -> MetricSpace:
    """The metric space that a vector set to be extended was made with.

    Raises `UsageError` when it wasn't made from documents, or when another space is asked for.
    """
    kept = geometry.statistics
    if kept.get("input") != "acousticbrainz":
        raise UsageError(
            "expected a vector set made from AcousticBrainz documents; the one to extend wasn't. "
            "Extend it with input of its own kind, or make a new one"
        )
    if asked not in (None, kept["space"]):
        raise UsageError(
            f"expected --space {kept['space']}, which the vector set to extend was made with; "
            f"got {asked}. Leave --space out, or make a new vector set"
        )
    if first_cepstral and first_cepstral != kept["first_cepstral"]:
        raise UsageError(
            f"the vector set to extend begins at cepstral coefficient {kept['first_cepstral']}, "
            f"not {first_cepstral}. Leave the option out, or make a new vector set"
        )
    return metric_space(kept["space"], kept["first_cepstral"])


def transformed(raw: Float64s, space: MetricSpace, statistics: Mapping[str, Any]) -> Float32s:
    """Vectors float32 [m, d] of raw rows [m, 64] under fitted `statistics`."""
    scales = statistics.get("scales", {})
    return np.concatenate(
        [
            scales.get(name, 1.0) * weight * _coordinates(raw, METRICS[name], statistics)
            for name, weight in space.weights
        ],
        axis=1,
    ).astype(np.float32, order="C")


def _coordinates(raw: Float64s, metric: Metric, statistics: Mapping[str, Any]) -> Float64s:
    columns = metric.columns(statistics["first_cepstral"])
    numbers = raw[:, columns]
    if metric.kind == "circle":
        angles = 2 * np.pi * (numbers[:, 0] % 1.0)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if metric.kind == "probabilities":
        return numbers
    kept = statistics["cepstral"][metric.name]
    standard = (numbers - np.array(kept["mean"])) / np.array(kept["deviation"])
    if metric.kind == "weighted cepstral":
        standard *= FADE[columns.start - metric.start :]
    return standard


def _standard(raw: Float64s, block_rows: int) -> dict[str, list[float]]:
    mean = sum(block.sum(axis=0) for block in _blocks(raw, block_rows)) / len(raw)
    squares = sum(((block - mean) ** 2).sum(axis=0) for block in _blocks(raw, block_rows))
    deviation = np.sqrt(squares / len(raw))
    # a constant coefficient says nothing: it becomes 0 everywhere
    deviation[deviation == 0] = 1.0
    return {"mean": np.asarray(mean).tolist(), "deviation": deviation.tolist()}


def _scales(
    raw: Float64s, space: MetricSpace, statistics: Mapping[str, Any], block_rows: int
) -> dict[str, float]:
    squares = dict.fromkeys((name for name, _ in space.weights), 0.0)
    for block in _blocks(raw, block_rows):
        for metric in space.metrics:
            squares[metric.name] += float((_coordinates(block, metric, statistics) ** 2).sum())
    # a block that is zero throughout stays so under any scale
    return {name: math.sqrt(len(raw) / square) if square else 1.0
            for name, square in squares.items()}  # fmt: skip


def _blocks(raw: Float64s, block_rows: int) -> list[Float64s]:
    return [raw[start : start + block_rows] for start in range(0, len(raw), block_rows)]


def _parsed_weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.strip().partition("=")
        if name not in METRICS or name in weights or not equals:
            raise UsageError(
                f"expected --space to be a metric ({', '.join(METRICS)}), a combination "
                f"({', '.join(COMBINATIONS)}) or weights such as mfccs=2,bpm=1; "
                f"got {text!r} (at {part.strip()!r})"
            )
        weights[name] = _weight(number, part)
    return weights


def _weight(number: str, part: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"expected a weight above 0 in --space; got {part.strip()!r}")
    return weight
