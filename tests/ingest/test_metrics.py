"""The metrics, against numbers worked out with `math` alone."""

import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfield.errors import UsageError
from nearfield.ingest.metrics import (
    COMBINATIONS,
    METRICS,
    RAW_NUMBERS,
    circular_medoid,
    fitted,
    key_position,
    metric_space,
    octave_position,
    space_of,
    transformed,
)
from nearfield.vectorset import Geometry

WIDTHS = {
    "mfccs": 13, "mfccsw": 13, "gfccs": 13, "gfccsw": 13, "key": 2, "bpm": 2, "onsetrate": 2,
    "moods": 5, "instruments": 3, "dortmund": 9, "rosamerica": 8, "tzanetakis": 10,
}  # fmt: skip


def rows(n=50, seed=3):
    return np.random.default_rng(seed).uniform(0.1, 9, size=(n, RAW_NUMBERS))


def vectors(raw, text, first=0):
    space = metric_space(text, first)
    return transformed(raw, space, fitted(raw, space).statistics)


def on_circle(turns):
    raw = np.zeros((1, RAW_NUMBERS))
    raw[0, METRICS["bpm"].start] = turns
    return vectors(raw, "bpm")[0]


def test_there_are_twelve_metrics_with_93_numbers():
    assert {name: metric.width(0) for name, metric in METRICS.items()} == WIDTHS
    assert metric_space("all").d == 93
    assert metric_space("combined").d == 67
    assert metric_space("timbre").d == 26
    assert metric_space("lowlevel").d == 32
    assert metric_space("highlevel").d == 35


@pytest.mark.parametrize(
    ("value", "expected"),
    [(139.925872803, (0.69130100, 0.72256690)), (1.06887590885, (0.82319608, 0.56775717))],
)
def test_octaves_on_a_circle_as_the_server_puts_them(value, expected):
    assert on_circle(octave_position(value)) == pytest.approx(expected, abs=1e-7)


def test_doubling_a_tempo_changes_nothing():
    points = [on_circle(octave_position(bpm)) for bpm in (60, 120, 240)]
    assert points[0] == pytest.approx(points[1], abs=1e-6)
    assert points[1] == pytest.approx(points[2], abs=1e-6)


def test_d_major_stands_where_the_server_puts_it():
    assert on_circle(key_position("D", "major")) == pytest.approx((0.5, 0.8660254), abs=1e-7)


@pytest.mark.parametrize(
    ("flat", "sharp"), [("Bb", "A#"), ("Eb", "D#"), ("Ab", "G#"), ("Db", "C#"), ("Gb", "F#")]
)
@pytest.mark.parametrize("scale", ["major", "minor"])
def test_flats_and_sharps_are_one_key(flat, sharp, scale):
    assert key_position(flat, scale) == key_position(sharp, scale)


@pytest.mark.parametrize(
    ("minor", "major"), [("A", "C"), ("E", "G"), ("F#", "A"), ("C", "Eb"), ("G", "Bb"), ("D", "F")]
)
def test_a_minor_key_stands_on_its_relative_major(minor, major):
    assert key_position(minor, "minor") == key_position(major, "major")


@pytest.mark.parametrize(("key", "scale"), [("H", "major"), ("", "minor"), ("C", "dorian")])
def test_an_unknown_key_has_no_position(key, scale):
    assert key_position(key, scale) is None


def test_cepstra_are_standardised_with_the_population_deviation():
    raw = rows()
    column = raw[:, 4].tolist()
    mean, deviation = statistics.fmean(column), statistics.pstdev(column)
    expected = [(value - mean) / deviation for value in column]
    assert vectors(raw, "mfccs")[:, 4] == pytest.approx(expected, abs=1e-5)
    assert vectors(raw, "mfccsw")[:, 4] == pytest.approx(
        [0.95**4 * value for value in expected], abs=1e-5
    )


def test_the_loudness_coefficient_can_be_left_out():
    raw = rows()
    assert vectors(raw, "mfccs", 1) == pytest.approx(vectors(raw, "mfccs")[:, 1:])
    assert vectors(raw, "gfccsw", 1) == pytest.approx(vectors(raw, "gfccsw")[:, 1:])
    assert metric_space("combined", 1).d == 65


def test_probabilities_of_a_single_metric_stay_as_they_are():
    raw = rows()
    metric = METRICS["dortmund"]
    assert vectors(raw, "dortmund") == pytest.approx(raw[:, metric.start : metric.stop])


@pytest.mark.parametrize("name", COMBINATIONS)
def test_blocks_of_a_combination_have_an_expected_squared_norm_of_one(name):
    made = vectors(rows(), name)
    for block in metric_space(name).blocks():
        norms = [math.fsum(x * x for x in row) for row in made[:, block.start : block.stop]]
        assert statistics.fmean(norms) == pytest.approx(1, rel=1e-5)


def test_a_weight_multiplies_its_block():
    made = vectors(rows(), "bpm=1,mfccs=2.5")
    blocks = metric_space("bpm=1,mfccs=2.5").blocks()
    assert [(block.name, block.weight) for block in blocks] == [("mfccs", 2.5), ("bpm", 1.0)]
    lengths = [np.sqrt((made[:, b.start : b.stop] ** 2).sum(1).mean()) for b in blocks]
    assert lengths == pytest.approx([2.5, 1.0], rel=1e-5)


def test_circular_blocks_say_so():
    circular = [block.name for block in metric_space("all").blocks() if block.circular]
    assert circular == ["key", "bpm", "onsetrate"]


def test_statistics_do_not_depend_on_how_the_rows_are_blocked():
    raw, space = rows(100), metric_space("all")
    one, many = fitted(raw, space).statistics, fitted(raw, space, block_rows=7).statistics
    assert one["cepstral"]["gfccs"]["mean"] == pytest.approx(many["cepstral"]["gfccs"]["mean"])
    assert one["scales"] == pytest.approx(many["scales"])


def test_statistics_survive_json_and_give_the_same_vectors():
    raw, space = rows(), metric_space("all")
    kept = fitted(raw, space).statistics
    again = json.loads(json.dumps(kept, allow_nan=False))
    assert np.array_equal(transformed(raw, space, kept), transformed(raw, space, again))


def test_a_constant_coefficient_becomes_zero_and_not_nan():
    raw = rows()
    raw[:, 2] = 7
    assert np.all(vectors(raw, "combined")[:, 2] == 0)


@pytest.mark.parametrize(
    "text",
    ["", "mfcc", "mfccs=0", "mfccs=-1", "mfccs=nan", "mfccs=inf", "mfccs=x", "bpm=1,bpm=2",
     "mfccs,bpm", "combined=2", "bpm=1,"],
)  # fmt: skip
def test_a_space_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--space"):
        metric_space(text)


def test_extending_keeps_the_space_and_refuses_another():
    base = fitted(rows(), metric_space("timbre"))
    assert space_of(base, None, 0) == metric_space("timbre")
    assert space_of(base, "timbre", 0) == metric_space("timbre")
    with pytest.raises(UsageError, match="timbre"):
        space_of(base, "bpm", 0)
    with pytest.raises(UsageError, match="coefficient 0"):
        space_of(base, None, 1)
    with pytest.raises(UsageError, match="AcousticBrainz"):
        space_of(Geometry(), None, 0)


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=9))
def test_the_medoid_of_a_circle_is_the_value_nearest_to_the_others(turns):
    def cost(value):
        around = [abs(value - other) % 1 for other in turns]
        return math.fsum(min(gap, 1 - gap) for gap in around)

    found = circular_medoid(np.array(turns))
    assert found in turns
    assert cost(found) == pytest.approx(min(map(cost, turns)), abs=1e-9)
