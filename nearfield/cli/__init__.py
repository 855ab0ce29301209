"""The command line: one program, a verb per stage, thin over `nearfield.api`.

Owns how errors end: a sentence on stderr and the exit code of the error's class.
"""

import sys

import typer

from nearfield.cli import building, databases, ingesting, jobs
from nearfield.errors import NearfieldError

INTERRUPTED = 130

app = typer.Typer(
    name="nearfield",
    help="The k-nearest-neighbour matrix of millions of recordings: from dumps or vectors to SQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 usage or configuration, 3 input rejected, 4 quality gate, "
    "5 infrastructure (run again to resume), 75 another process holds the lock, 130 interrupted.",
)

for commands in (ingesting, building, databases, jobs):
    commands.register(app)


def main() -> None:
    """Run the program and exit with the code that the outcome asks for."""
    try:
        app()
    except NearfieldError as error:
        print(f"nearfield: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("nearfield: interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(INTERRUPTED)
