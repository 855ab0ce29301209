"""The command line: one program, a verb per stage, thin over `nearfield.api`.

Owns how errors end: a sentence on stderr and the exit code of the error's class.
"""

import sys
from typing import Annotated

import typer

from nearfield import __version__
from nearfield.cli import (
    benching,
    building,
    databases,
    dumping,
    indexing,
    ingesting,
    jobs,
    machines,
    planning,
    updating,
)
from nearfield.exits import INTERRUPTED, errors_end
from nearfield.interrupts import Interrupted, raise_on_signals

app = typer.Typer(
    name="nearfield",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage or configuration, 3 input rejected, 4 quality gate, "
    "5 infrastructure (run again to resume), 75 another process holds the lock, 130 interrupted.",
)

for commands in (
    ingesting,
    benching,
    building,
    databases,
    indexing,
    dumping,
    jobs,
    machines,
    planning,
    updating,
):
    commands.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nearfield {__version__}")
        raise typer.Exit


@app.callback()
def program(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """The k-nearest-neighbour matrix of millions of recordings: from dumps or vectors to SQL."""


def main() -> None:
    """Run the program and exit with the code that the outcome asks for."""
    raise_on_signals()
    try:
        with errors_end("nearfield"):
            app()
    except Interrupted:
        print("nearfield: interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(INTERRUPTED)
