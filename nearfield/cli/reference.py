"""The command-line reference, made from the help texts: `python -m nearfield.cli.reference`.

`docs/cli.md` is its output; a test compares them.
"""

import os

import typer

WIDTH = 96


def reference() -> str:
    """Markdown with the help of the program and of every command."""
    os.environ["TERMINAL_WIDTH"] = str(WIDTH)
    from nearfield.cli import app

    program = typer.main.get_command(app)
    parts = ["# Command line\n\nMade by `python -m nearfield.cli.reference`; don't edit.\n"]
    with program.make_context("nearfield", [], resilient_parsing=True) as context:
        context.terminal_width = WIDTH
        parts.append(_section("nearfield", program.get_help(context)))
        for name in program.list_commands(context):  # type: ignore[attr-defined]
            command = program.get_command(context, name)  # type: ignore[attr-defined]
            with command.make_context(
                name, [], parent=context, resilient_parsing=True, terminal_width=WIDTH
            ) as inner:
                parts.append(_section(f"nearfield {name}", command.get_help(inner)))
                for verb in getattr(command, "commands", {}):
                    below = command.commands[verb]
                    with below.make_context(
                        verb, [], parent=inner, resilient_parsing=True, terminal_width=WIDTH
                    ) as last:
                        parts.append(_section(f"nearfield {name} {verb}", below.get_help(last)))
    return "\n".join(parts)


def _section(title: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {title}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    print(reference(), end="")
