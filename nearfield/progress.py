"""Progress of long work, on stderr: a bar with ETA on a terminal, a line a minute without one.

Owns nothing else; results go to stdout and are not its business.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]
LINE_EVERY_S = 60.0


@contextmanager
def progress(title: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Yield a function to call with the number of `unit`s done since the last call.

    `total` None: the amount isn't known beforehand, so no ETA is shown. Call from one thread.
    """
    if sys.stderr.isatty():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        yield _Lines(title, total, unit).advance


@contextmanager
def _bar(title: str, total: int | None, unit: str) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda amount: bar.advance(task, amount)


class _Lines:
    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        self.started = self.printed = time.monotonic()

    def advance(self, amount: int) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.printed < LINE_EVERY_S:
            return
        self.printed = now
        elapsed = now - self.started
        text = f"{self.title}: {self.done:,} {self.unit} in {elapsed:.0f} s"
        if self.total and self.done:
            left = elapsed * (self.total - self.done) / self.done
            text += f", {100 * self.done / self.total:.0f}%, about {left:.0f} s left"
        print(text, file=sys.stderr, flush=True)
