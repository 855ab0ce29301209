"""Grids: which methods are measured, with which build parameters and search efforts.

Owns the format of a grid file (TOML; `default.toml` beside this file explains and is the default)
and its reading. Everything is checked against the methods before anything is measured.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from benchmark.methods import Method, method_class, method_named
from nearfield.errors import MissingFile, UsageError
from nearfield.manifest import fingerprint
from nearfield.space import SpaceName, space_named

DEFAULT = Path(__file__).with_name("default.toml")
CLASS, EFFORTS, SPACES, QUICK = "class", "efforts", "spaces", "quick"
_PER_K = re.compile(r"(\d+(?:\.\d+)?)k")


@dataclass(frozen=True)
class Configuration:
    """A method with all its build parameters, and the efforts to search it with.

    address: what `method_named` takes: a name or an import path. efforts: numbers, or "2.5k" for
    that multiple of k + 1; none: what the built index suggests.
    """

    address: str
    parameters: tuple[tuple[str, Any], ...]
    efforts: tuple[int | str, ...]
    spaces: frozenset[SpaceName]

    @property
    def method(self) -> Method:
        """The method itself."""
        return method_named(self.address, dict(self.parameters))

    @property
    def name(self) -> str:
        """The method's own name, which an import path hasn't."""
        return method_class(self.address).name

    @property
    def fingerprint(self) -> str:
        """16 hex digits of what is built: address and all parameters. Efforts don't count."""
        return fingerprint(method=self.address, parameters=dict(self.parameters))

    def efforts_for(self, k: int, suggested: Sequence[int]) -> list[int]:
        """Efforts to try for k neighbours, ascending; `suggested`: `Index.efforts(k)`."""
        if not self.efforts:
            return list(suggested)
        return sorted({_resolved(effort, k) for effort in self.efforts})

    def __str__(self) -> str:
        return str(self.method)


def load_grid(path: Path | None = None, *, quick: bool = False) -> list[Configuration]:
    """All configurations of a grid file, of the default one without `path`.

    `quick`: those of the `quick` tables instead; methods without one are left out. Raises
    `MissingFile`, and `UsageError` for an unknown method, parameter, space or effort, naming the
    known ones. The same configuration listed twice counts once.
    """
    file = path or DEFAULT
    try:
        grid = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MissingFile(f"expected a grid file at {file}, found none") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the grid file {file} isn't TOML: {error}") from error
    found: dict[tuple[str, tuple[int | str, ...]], Configuration] = {}
    for section, content in grid.items():
        for table in content if isinstance(content, list) else [content]:
            if not isinstance(table, dict):
                raise UsageError(
                    f"the grid file {file}: expected a table [METHOD]; got {section} = {content!r}"
                )
            try:
                for one in _configurations(section, table, quick):
                    found.setdefault((one.fingerprint, one.efforts), one)
            except UsageError as error:
                raise UsageError(f"the grid file {file}, [{section}]: {error}") from error
    if not found:
        what = "quick tables" if quick else "methods"
        raise UsageError(f"the grid file {file} has no {what}: nothing to measure")
    return list(found.values())


def _configurations(section: str, table: Mapping[str, Any], quick: bool) -> Iterator[Configuration]:
    address = table.get(CLASS, section)
    if not isinstance(address, str):
        raise UsageError(f"expected {CLASS} to be an import path; got {address!r}")
    method = method_class(address)
    # the whole table is checked, whichever half of it is used
    whole = [_table(address, method, half) for half in _halves(table)]
    yield from (whole[1] if len(whole) > 1 else []) if quick else whole[0]


def _halves(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    common = {name: table[name] for name in (SPACES,) if name in table}
    own = {name: value for name, value in table.items() if name not in (CLASS, QUICK)}
    if QUICK not in table:
        return [own]
    if not isinstance(table[QUICK], dict):
        raise UsageError(f"expected {QUICK} to be a table; got {table[QUICK]!r}")
    return [own, common | table[QUICK]]


def _table(address: str, method: type[Method], table: Mapping[str, Any]) -> list[Configuration]:
    efforts = tuple(_checked_effort(effort) for effort in _values(table.get(EFFORTS, [])))
    spaces = _spaces(method, table)
    axes = {n: _values(v) for n, v in table.items() if n not in (EFFORTS, SPACES)}
    if empty := [name for name, values in axes.items() if not values]:
        raise UsageError(f"expected at least one value for {empty[0]}; got an empty list")
    return [
        Configuration(
            address,
            tuple(method_named(address, dict(zip(axes, values, strict=True))).parameters.items()),
            efforts,
            spaces,
        )
        for values in product(*axes.values())
    ]


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _spaces(method: type[Method], table: Mapping[str, Any]) -> frozenset[SpaceName]:
    spaces = frozenset(space_named(name) for name in _values(table.get(SPACES, [*method.spaces])))
    if lacking := sorted(spaces - method.spaces):
        raise UsageError(
            f"{method.name} has no space {lacking[0]}; it has {', '.join(sorted(method.spaces))}"
        )
    return spaces


def _checked_effort(effort: Any) -> int | str:
    number = isinstance(effort, int) and not isinstance(effort, bool) and effort >= 0
    if number or (isinstance(effort, str) and _PER_K.fullmatch(effort)):
        return effort
    raise UsageError(
        f'expected an effort like 64, or "1.5k" for a multiple of k + 1; got {effort!r}'
    )


def _resolved(effort: int | str, k: int) -> int:
    if isinstance(effort, int):
        return effort
    return max(1, round(float(effort.removesuffix("k")) * (k + 1)))
