"""How results are printed: text for people or JSON for machines, on stdout; and warnings."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nearfield.dsn import has_password
from nearfield.objects import ObjectPath

WIDE = 1 << 16
"""Columns of a pipe."""

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it takes; do nothing.")
]


def examples(*commands: str) -> str:
    """The end of a help text: example commands, one a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def print_json(report: Any) -> None:
    """Print a dataclass, a mapping or a list of them as one JSON document."""
    print(json.dumps(report, default=_plain, indent=2))


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print named values, one a line, aligned."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        print(f"{name:<{width}}  {value}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table; numbers stand to the right. Never narrower than its content in a pipe."""
    table = Table(*columns, title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    listed = list(rows)
    for place, column in enumerate(table.columns):
        if listed and isinstance(listed[0][place], int | float):
            column.justify = "right"
    for row in listed:
        table.add_row(*(_cell(value) for value in row))
    # an id such as db:key:7 is no picture of a key
    console = Console(emoji=False)
    if not console.is_terminal:
        console = Console(emoji=False, width=WIDE)
    console.print(table, markup=False, highlight=False)


def print_steps(steps: Iterable[Mapping[str, Any]]) -> None:
    """Print what each step took and reported, one a line."""
    print_table(("step", "seconds", "what"), (_step_cells(step) for step in steps))


def warn_of_password(dsn: str | None) -> None:
    """For a command whose option may hold a secret."""
    if dsn and has_password(dsn):
        print(
            "warning: others on this machine can read a password on the command line; "
            "put the address into NEARFIELD_DSN",
            file=sys.stderr,
        )


def size(amount: float) -> str:
    """Bytes for people: 1.4 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def _step_cells(step: Mapping[str, Any]) -> tuple[object, ...]:
    rest = (f"{name} {value}" for name, value in step.items() if name not in {"step", "seconds"})
    return step["step"], float(step["seconds"]), ", ".join(rest)


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Path | ObjectPath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "to_json"):
        return value.to_json()
    return asdict(value)
