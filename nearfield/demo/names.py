"""Made-up artists, titles and albums. Owns the word lists; refuses to know about music."""

from collections.abc import Sequence

import numpy as np


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ADJECTIVES = _words("""
    Amber Bitter Blue Borrowed Broken Brass Bright Burning Careless Cold Copper Crooked Distant
    Drowsy Electric Empty Faded Feral Gentle Golden Hollow Hidden Idle Indigo Iron Lonely Lucky
    Lunar Marble Midnight Narrow Northern Paper Patient Quiet Restless Rusty Scarlet Secret
    Silver Slow Solar Stolen Sudden Tender Velvet Wandering Wild Winter Wooden
""")
NOUNS = _words("""
    Anchor Avenue Bell Bridge Cabin Candle Canyon Carousel Chapel Circle Comet Compass Corner
    Current Diary Engine Feather Ferry Field Fountain Garden Harbour Harvest Horizon Island
    Kettle Lantern Letter Magnet Map Meadow Mirror Moth Orchard Parade Pilot Postcard Radio
    Raven Ribbon River Shadow Signal Station Stranger Sundial Tide Tower Train Window
""")
FIRST = _words("""
    Ada Bruno Carla Dario Edith Felix Greta Hugo Ines Jonas Kaya Leon Mira Nils Olga Pablo Quinn
    Rosa Selim Tessa Umar Vera Wanda Xenia Yusuf Zora
""")
LAST = _words("""
    Abel Bergen Castell Dorn Eklund Farrow Grieve Holm Ishida Jarvis Kessler Lund Marsh Novak
    Okoye Pryce Quist Rivera Sandor Thorne Ulrich Varga Whitlock Yates Zeller
""")
TITLES = ("{a} {n}", "The {n}", "{n} of the {a} {m}", "My {a} {n}", "{n} and {m}", "{a}, {a2}")


def artist_names(count: int, rng: np.random.Generator) -> list[str]:
    """`count` different names of bands and persons."""
    names = [f"The {adjective} {_plural(noun)}" for adjective in ADJECTIVES for noun in NOUNS]
    names += [f"{first} {last}" for first in FIRST for last in LAST]
    order = rng.permutation(len(names))
    return [names[order[i % len(names)]] + _ordinal(i // len(names)) for i in range(count)]


def title(rng: np.random.Generator) -> str:
    """A title of one to five words."""
    form = TITLES[int(rng.integers(len(TITLES)))]
    words = {"a": ADJECTIVES, "a2": ADJECTIVES, "n": NOUNS, "m": NOUNS}
    return form.format(**{slot: _one_of(pool, rng) for slot, pool in words.items()})


def _one_of(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _ordinal(repeat: int) -> str:
    return f" {repeat + 1}" if repeat else ""
