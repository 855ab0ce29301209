"""Making the files of a stage on the cluster: those that are finished are kept.

Owns the count of what was made and kept, and what `steps.jsonl` says of a stage. Refuses to know
what is in a file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distributed import Client

from nearfield.cluster import Begun, Task, begin_tasks, run_tasks
from nearfield.locations import Location
from nearfield.run import Run
from nearfield.traffic import Traffic


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
        self.beside: Begun = {}

    def begin(self, tasks: Sequence[Task]) -> None:
        """Begin what is done beside the stages to come, which don't wait for it."""
        self.beside |= begin_tasks(self.client, tasks)

    def make(
        self, stage: str, wanted: Sequence[Wanted], *, before: Sequence[Sequence[Wanted]] = ()
    ) -> list[Location]:
        """Run the tasks whose file isn't finished; the paths of all files, in their order.

        before: files that these need, group by group, which needn't stay and don't count. Raises
        `ShardFailed` when tasks fail after their retries.
        """
        self.check()
        with self.run.step(stage) as facts:
            todo = [one for one in wanted if not one.finished()]
            self.parts += len(wanted)
            self.kept += len(wanted) - len(todo)
            facts |= {"tasks": len(wanted), "kept": len(wanted) - len(todo)}
            traffic = Traffic()
            for group in (*before, todo) if todo else ():
                tasks = [one.task for one in group if not one.finished()]
                traffic += run_tasks(self.client, stage, tasks, beside=self.beside)
            facts |= {"bytes_read": traffic.read, "bytes_written": traffic.written}
            moved = traffic.read + traffic.written
            facts["bytes_per_recording"] = round(moved / self.run.config.n)
        return [one.path for one in wanted]
