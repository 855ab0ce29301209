"""The licence that a dump is given to others under: a known name, a file, or none stated."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from nearfield.errors import MissingFile, UsageError

URLS = {"CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/"}
"""Licences whose text comes with nearfield, by SPDX name."""
NONE_STATED = (
    "The publisher of this dump stated no licence. Without one, others have no rights beyond\n"
    "those that the law gives them: ask the publisher before you pass it on.\n"
)
MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Licence:
    """`name`: an SPDX name, a file's name, or None where none was stated."""

    name: str | None
    text: str

    @property
    def url(self) -> str | None:
        """Where the licence is published, if it is a known one."""
        return URLS.get(self.name or "")


def licence_of(choice: str | None) -> Licence:
    """The licence that is meant by a name, or by the path of a text file.

    Raises `MissingFile` when it is neither and `UsageError` when the file isn't a text.
    """
    if choice is None:
        return Licence(None, NONE_STATED)
    if choice in URLS:
        text = (files("dumps.dump") / "licences" / f"{choice}.txt").read_text(encoding="utf-8")
        return Licence(choice, text)
    path = Path(choice)
    if not path.is_file():
        raise MissingFile(
            f"expected --licence as one of {', '.join(URLS)} or as a text file, "
            f"{choice} is neither: give the path of the licence's text"
        )
    if path.stat().st_size > MOST_BYTES:
        raise UsageError(f"{path} has over {MOST_BYTES:,} bytes: that is no licence text")
    try:
        return Licence(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} isn't UTF-8 text: give the licence's text") from error
