"""Times and amounts of memory as people write them: 30m, 1.5h, 8GiB, 500MB."""

import re

from nearfield.errors import UsageError

SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
BYTES = {
    **{"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40},
    **{"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12},
    **{"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40},
}
_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def seconds_of(text: str | None, option: str) -> float | None:
    """Seconds of `90`, `90s`, `30m`, `1.5h` or `2d`; None stays None. Raises `UsageError`."""
    return None if text is None else _parsed(text, option, SECONDS, "a time such as 90s, 30m or 2h")


def bytes_of(text: str | None, option: str) -> int | None:
    """Bytes of `8GiB`, `8g`, `500MB` or a plain number; None stays None. Raises `UsageError`."""
    expected = "an amount of memory such as 500MB or 8GiB"
    return None if text is None else int(_parsed(text, option, BYTES, expected))


def _parsed(text: str, option: str, units: dict[str, int], expected: str) -> float:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2].lower() not in units:
        raise UsageError(f"expected {expected} for {option}; got {text!r}")
    return float(match[1]) * units[match[2].lower()]
