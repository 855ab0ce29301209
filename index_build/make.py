"""Making the files of a stage on the cluster: those that are finished are kept.

Owns the count of what was made and kept, and what `steps.jsonl` says of a stage. Refuses to know
what is in a file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distributed import Client

from nearfield.cluster import Task, run_tasks
from nearfield.locations import Location
from nearfield.run import Run


@dataclass(frozen=True)
class Wanted:
    """A file, the task that makes it, and whether it is finished already."""

    path: Location
    task: Task
    finished: Callable[[], bool]


class Maker:
    """Makes files under one run; counts them in `parts`, and in `kept` those that were there.

    check: raises when the run isn't ours any more; called before each stage.
    """

    def __init__(self, run: Run, client: Client, check: Callable[[], None]) -> None:
        self.run, self.client, self.check = run, client, check
        self.parts = self.kept = 0

    def make(
        self, stage: str, wanted: Sequence[Wanted], *, beside: Sequence[Task] = ()
    ) -> list[Location]:
        """Run the tasks whose file isn't finished; the paths of all files, in their order.

        beside: what is done meanwhile, first in line. Raises `ShardFailed` when tasks fail after
        their retries.
        """
        self.check()
        with self.run.step(stage) as facts:
            todo = [one for one in wanted if not one.finished()]
            self.parts += len(wanted)
            self.kept += len(wanted) - len(todo)
            facts |= {"tasks": len(wanted), "kept": len(wanted) - len(todo)}
            traffic = run_tasks(self.client, stage, [*beside, *(one.task for one in todo)])
            facts |= {"bytes_read": traffic.read, "bytes_written": traffic.written}
            moved = traffic.read + traffic.written
            facts["bytes_per_recording"] = round(moved / self.run.config.n)
        return [one.path for one in wanted]
