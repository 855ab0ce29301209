"""The power law: recovered where it holds, and an interval that says how sure it is."""

import math

import numpy as np
import pytest

from benchmark.results.growth import growth_of


def test_an_exact_power_law_is_recovered():
    sizes = [1_000, 10_000, 100_000]
    growth = growth_of(sizes, [2e-3 * n**1.2 for n in sizes])
    foretold = growth.at(1_000_000)
    assert growth.exponent == pytest.approx(1.2)
    assert foretold.value == pytest.approx(2e-3 * 1e6**1.2)
    assert foretold.low == pytest.approx(foretold.high, rel=1e-6)


def test_the_interval_holds_a_further_measurement_as_often_as_it_says():
    rng, sizes = np.random.default_rng(1), [10_000] * 3 + [100_000] * 3 + [1_000_000] * 3
    inside = 0
    for _ in range(400):
        noise = np.exp(0.2 * rng.standard_normal(10))
        costs = [1e-4 * n**1.1 * factor for n, factor in zip(sizes, noise, strict=False)]
        foretold = growth_of(sizes, costs).at(4_000_000)
        inside += foretold.low <= 1e-4 * 4_000_000**1.1 * noise[9] <= foretold.high
    assert 0.92 <= inside / 400 <= 0.98


def test_it_widens_with_the_distance_from_what_was_measured():
    growth = growth_of([1_000, 10_000, 100_000], [1.0, 12.0, 90.0])
    near, far = growth.at(200_000), growth.at(10_000_000)
    assert far.high / far.value > near.high / near.value > 1


def test_two_points_foretell_without_an_interval():
    foretold = growth_of([1_000, 2_000], [1.0, 2.0]).at(4_000)
    assert (foretold.value, foretold.low, foretold.high) == (pytest.approx(4), 0, math.inf)


def test_one_size_foretells_nothing():
    assert growth_of([1_000, 1_000], [1.0, 1.1]) is None
    assert growth_of([1_000, 2_000], [1.0, 0.0]) is None
    assert growth_of([], []) is None


def test_a_hopeless_fit_is_an_infinite_interval_not_an_overflow():
    foretold = growth_of([1_000, 1_001, 1_002], [1.0, 900.0, 1.0]).at(10**9)
    assert foretold.high == math.inf
