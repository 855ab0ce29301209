"""Generated data of low intrinsic dimension, the default of the benchmark.

Points lie around 2,000 centres in a latent space of 18 dimensions (or others), with heavy-tailed
cluster sizes; a random two-layer tanh map takes them to d dimensions, and noise is added. Owns the
model and its seed; refuses files. The same (n, d, latent, seed) gives the same data on one machine:
the map is a matrix product, whose last bits belong to the BLAS at hand.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nearfield.space import Float32s

CENTRES = 2_000
LATENT_DIMENSIONS = 18
HIDDEN = 256
SIZE_TAIL = 1.2
"""Cluster weights are Pareto distributed with this exponent: the largest holds some percent."""
SPREAD = 0.55
"""Standard deviation of a point around its centre; centres have 1."""
NOISE = 0.05
BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class _Model:
    centres: Float32s
    weights: NDArray[np.float64]
    first: Float32s
    second: Float32s


def manifold(n: int, d: int, *, latent: int = LATENT_DIMENSIONS, seed: int = 0) -> Float32s:
    """Vectors float32 [n, d] in random order. Cost O(n d), in blocks of `BLOCK_ROWS` rows.

    latent: dimensions that they really vary in, beside the noise. A block's rows depend on
    (d, latent, seed, block number) only, so a smaller n is a prefix of a larger.
    """
    model = _model(d, latent, seed)
    vectors = np.empty((n, d), np.float32)
    for block, start in enumerate(range(0, n, BLOCK_ROWS)):
        rows = vectors[start : start + BLOCK_ROWS]
        rows[:] = _block(model, np.random.default_rng((seed, 1, block)))[: len(rows)]
    return vectors


def _model(d: int, latent: int, seed: int) -> _Model:
    random = np.random.default_rng((seed, 0))
    weights = random.pareto(SIZE_TAIL, CENTRES) + 1
    return _Model(
        centres=random.standard_normal((CENTRES, latent), np.float32),
        weights=weights / weights.sum(),
        first=_layer(random, latent, HIDDEN),
        second=_layer(random, HIDDEN, d),
    )


def _layer(random: np.random.Generator, inputs: int, outputs: int) -> Float32s:
    return random.standard_normal((inputs, outputs), np.float32) / np.float32(np.sqrt(inputs))


def _block(model: _Model, random: np.random.Generator) -> Float32s:
    cluster = random.choice(CENTRES, BLOCK_ROWS, p=model.weights)
    latent = model.centres[cluster] + SPREAD * random.standard_normal(
        (BLOCK_ROWS, model.centres.shape[1]), np.float32
    )
    mapped = np.tanh(np.tanh(latent @ model.first) @ model.second)
    return mapped + np.float32(NOISE) * random.standard_normal(mapped.shape, np.float32)
