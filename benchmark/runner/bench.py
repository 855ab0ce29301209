"""The benchmark as a whole: prepare, find the truth, measure, write tables, choice and report.

Owns the order of things. Everything that is finished is kept, so the same command
again converges, and another one with more methods, sizes or k adds to what is there.
"""

import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from distributed import Client

from benchmark.choice import CHOICE, Searched, write_choice
from benchmark.grids import Configuration, load_grid
from benchmark.methods import METHODS
from benchmark.report import write_report
from benchmark.results.ann_benchmarks import export_results
from benchmark.results.file import read_outcomes, result_files
from benchmark.results.outcome import UNTRIED, Outcome, Workload
from benchmark.results.table import write_table
from benchmark.runner.about import About, earlier_results, libraries_of, offered, write_about
from benchmark.runner.container import Image, asked_image
from benchmark.runner.data import Data, is_prepared, prepare_data
from benchmark.runner.group import GroupReport
from benchmark.runner.plan import (
    KS,
    QUICK_KS,
    QUICK_REPEAT,
    REPEAT,
    WORKLOADS,
    Group,
    Settings,
    ks_for,
    sizes_for,
)
from benchmark.runner.room import disk_bytes
from benchmark.runner.schedule import one_worker_per_host, run_groups
from benchmark.runner.store import Place
from benchmark.runner.truth import audit_given, truth_task
from nearfield.cluster import ClusterOptions, connected
from nearfield.errors import UsageError, disk_errors
from nearfield.files import remove_temporaries
from nearfield.lock import locked
from nearfield.progress import progress

QUICK_EFFORTS = 4
MEMORY_SHARE = 0.8
"""Of the machine's memory: the cap of a process unless said otherwise."""
FOLDERS = ("results", "truth", "indexes", "data")


@dataclass(frozen=True)
class BenchOptions:
    """What a user chooses. None: the default, which depends on `quick` and on the machines that
    measure.

    methods: out of the grid, all if empty. rows: sizes. budget_s: for everything; timeout_s and
    memory_bytes: for one process. container: image to measure in. space: for files without one.
    full: everything that the grid names, at every size, whether or not it is worth it.
    """

    methods: tuple[str, ...] = ()
    grid: Path | None = None
    quick: bool = False
    ks: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None
    workloads: tuple[Workload, ...] = WORKLOADS
    space: str | None = None
    budget_s: float | None = None
    timeout_s: float = 1200.0
    memory_bytes: int | None = None
    threads: int | None = None
    container: str | None = None
    seed: int = 0
    full: bool = False

    @property
    def asked_ks(self) -> tuple[int, ...]:
        """The values of k, ascending."""
        return tuple(sorted(set(self.ks or (QUICK_KS if self.quick else KS))))

    def settings(self, cores: int, memory_bytes: int) -> Settings:
        """How everything is measured on machines that have so much."""
        return Settings(
            ks=self.asked_ks,
            workloads=self.workloads,
            threads=self.threads or cores,
            timeout_s=self.timeout_s,
            memory_bytes=self.memory_bytes or int(MEMORY_SHARE * memory_bytes),
            repeat=QUICK_REPEAT if self.quick else REPEAT,
            efforts=QUICK_EFFORTS if self.quick else None,
            full=self.full,
            seed=self.seed,
            container=self.container,
        )


@dataclass(frozen=True)
class BenchReport:
    """What a benchmark did: rows of the table by status, points measured now and kept.

    `dropped`: groups of which the budget left something out. `page`: the report, as HTML.
    """

    out: Path
    dataset: str
    sizes: tuple[int, ...]
    rows: Mapping[str, int]
    measured: int
    kept: int
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    choice: Path
    page: Path
    candidates: int
    seconds: float


@dataclass(frozen=True)
class BenchPlan:
    """What a benchmark would measure. `disk_bytes`: an estimate."""

    dataset: str
    rows: int
    d: int
    sizes: tuple[int, ...]
    ks: tuple[int, ...]
    configurations: tuple[str, ...]
    groups: int
    disk_bytes: int
    notes: tuple[str, ...]


def run_bench(
    source: Path, out: Path, options: BenchOptions, cluster: ClusterOptions | None = None
) -> BenchReport:
    """Measure the methods on the vectors of `source` in the directory `out`, or go on there.

    Raises `UsageError` (options, grid, another data set in `out`), `InputRejected`, `MissingFile`,
    `Infrastructure`, `DiskFull`, `RunLocked`. What libraries do wrong are rows of the table.
    """
    started = time.monotonic()
    configurations = chosen_configurations(options)
    image = check_options(options, configurations)
    with locked(out), disk_errors(out):
        data = _prepared(source, out, options)
        sizes = sizes_for(data.base, options.rows, quick=options.quick)
        groups = [Group(n, configuration) for n in sizes for configuration in configurations]
        with connected(cluster or ClusterOptions(workers=1)) as client:
            place = Place(out.resolve(), data, _settings(client, options, image))
            earlier = earlier_results(client, place, configurations)
            notes = [*_notes(data, sizes, options), *earlier.notes]
            write_about(place, client, About(sizes, configurations, notes, image, earlier))
            _find_truths(client, place, sizes)
            spent = time.monotonic() - started
            left = None if options.budget_s is None else max(0.0, options.budget_s - spent)
            reports: dict[Group, GroupReport] = {}
            try:
                run_groups(client, place, groups, left, partial(_report_into, reports))
            finally:
                # however it ends, what was measured so far is recommended
                found = list(reports.values())
                outcomes = all_outcomes(place.directory, found, earlier.aside)
                write_table(place.directory, outcomes)
                choice = write_choice(out / CHOICE, _searched(place), outcomes)
                page = write_report(out)
        export_results(place.directory, data.queries, outcomes, base=data.base)
    return BenchReport(
        out=out,
        dataset=data.name,
        sizes=sizes,
        rows=_counted(outcomes),
        measured=sum(report.measured for report in reports.values()),
        kept=sum(report.kept for report in reports.values()),
        dropped=tuple(report.group.label for report in reports.values() if report.dropped),
        notes=tuple(notes),
        choice=out / CHOICE,
        page=page,
        candidates=len(choice.candidates),
        seconds=time.monotonic() - started,
    )


def _report_into(reports: dict[Group, GroupReport], report: GroupReport) -> None:
    """Keep the last report of each group; what an earlier one measured counts as measured."""
    earlier = reports.get(report.group)
    if earlier is not None:
        new = earlier.measured
        report = replace(report, measured=report.measured + new, kept=report.kept - new)
    reports[report.group] = report


def chosen_configurations(options: BenchOptions) -> list[Configuration]:
    """The grid's configurations of the asked methods. Raises `UsageError` for unknown ones."""
    configurations = load_grid(options.grid, quick=options.quick)
    if not options.methods:
        return configurations
    there = {name for one in configurations for name in (one.name, one.address)}
    unknown = [name for name in options.methods if name not in there]
    if unknown:
        known = ", ".join(sorted({configuration.name for configuration in configurations}))
        raise UsageError(f"expected methods out of the grid's {known}; got {unknown[0]!r}")
    return [one for one in configurations if {one.name, one.address} & set(options.methods)]


def check_options(options: BenchOptions, configurations: Sequence[Configuration]) -> Image | None:
    """Raise `UsageError` for options that make no sense, before anything is written; returns the
    image to measure in, if there is one.
    """
    if min(options.asked_ks) < 1:
        raise UsageError(f"expected k of at least 1, got {min(options.asked_ks)}")
    if not options.workloads or set(options.workloads) - set(WORKLOADS):
        given = ", ".join(options.workloads) or "nothing"
        raise UsageError(f"expected workloads out of {', '.join(WORKLOADS)}; got {given}")
    limits = {
        "--timeout": options.timeout_s,
        "--budget": options.budget_s,
        "--memory": options.memory_bytes,
        "--threads": options.threads,
    }
    for name, value in limits.items():
        if value is not None and value <= 0:
            raise UsageError(f"expected {name} above 0, got {value}")
    if options.container is None:
        return None
    # earlier runs may have measured other methods
    ours = {method.library for method in METHODS.values()}
    return asked_image(options.container, sorted(ours | {*libraries_of(configurations)}))


def _prepared(source: Path, out: Path, options: BenchOptions) -> Data:
    """The data in `out`, which is refused where it holds the benchmark of another data set."""
    for name in FOLDERS:
        (out / name).mkdir(exist_ok=True)
        remove_temporaries(out / name)
    remove_temporaries(out)
    return prepare_data(source, out.resolve() / "data", space=options.space, seed=options.seed)


def _settings(client: Client, options: BenchOptions, image: Image | None) -> Settings:
    settings = options.settings(*offered(client))
    return settings if image is None else replace(settings, image=image.id, lacking=image.lacking)


def _find_truths(client: Client, place: Place, sizes: Sequence[int]) -> None:
    settings, data = place.settings, place.data
    tasks = [
        truth_task(place.directory, data, workload, n, max(ks_for(n, settings.ks)))
        for n in sizes
        for workload in settings.workloads
    ]
    if data.base in sizes and "queries" in settings.workloads:
        audit_given(data)
    host = one_worker_per_host(client)[:1]
    missing = [task for task in tasks if task is not None]
    with progress("truth", len(missing), "truths") as advance:
        # not by `run_tasks`: what is amiss here, such as a full disk, keeps its own error
        for task in missing:
            client.submit(
                task.function,
                *task.arguments,
                threads=settings.threads,
                workers=host,
                pure=False,
            ).result()
            advance(1)


def all_outcomes(
    directory: Path, reports: Sequence[GroupReport], aside: Container[str] = ()
) -> list[Outcome]:
    """Rows of the table: those of the reports, and what else lies in the directory, but for the
    files `aside`, which are of other circumstances.

    A file of an earlier run doesn't count where a report covers its place: it is a failure that has
    been overcome, or of other efforts. What was only left out covers nothing, and goes where there
    are figures. Of several files the newest counts.
    """
    reported = [row for report in reports for row in (*report.outcomes, *report.unmeasured)]
    covered = {_place_of(outcome) for outcome in reported if outcome.status not in UNTRIED}
    rest: dict[tuple[object, ...], Outcome] = {}
    for path in result_files(directory):
        found = None if path.name in aside else read_outcomes(path)
        for outcome in found[1] if found is not None else ():
            if _place_of(outcome) not in covered:
                key = (*_place_of(outcome), outcome.batch, outcome.search)
                key += (outcome.memory_limit_bytes,)
                if key not in rest or rest[key].measured_at < outcome.measured_at:
                    rest[key] = outcome
    figures = {_place_of(outcome) for outcome in rest.values()}
    told = (row for row in reported if row.status not in UNTRIED or _place_of(row) not in figures)
    return [*told, *rest.values()]


def _place_of(outcome: Outcome) -> tuple[object, ...]:
    return outcome.n, outcome.k, outcome.workload, outcome.method, outcome.build


def _searched(place: Place) -> Searched:
    data = place.data
    return Searched(
        dataset=data.name,
        vectors_fingerprint=data.vectors_fingerprint,
        space=data.space,
        n=data.whole,
        d=data.d,
        threads=place.settings.threads,
    )


def _notes(data: Data, sizes: Sequence[int], options: BenchOptions) -> list[str]:
    """What a reader of the figures must know about the data and what was left out."""
    notes = []
    asked = options.asked_ks
    for n in sizes:
        if ks_for(n, asked) != asked:
            left_out = ", ".join(f"{k:,}" for k in asked if k >= n)
            kept = ", ".join(f"{k:,}" for k in ks_for(n, asked))
            notes.append(f"k = {left_out} needs more than {n:,} rows: k = {kept} there")
    if data.distinct < data.base:
        notes.append(
            f"{data.base - data.distinct:,} of {data.base:,} rows equal another one: neighbours at "
            "distance 0 count as ties, whichever of them is found"
        )
    return notes


def _counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return dict(Counter(str(outcome.status) for outcome in outcomes))


def plan_bench(source: Path, out: Path, options: BenchOptions) -> BenchPlan:
    """What `run_bench` would measure; reads the source, writes nothing below `out`.

    What is prepared there is read; else the vectors are copied into a temporary directory. Raises
    as `run_bench` does.
    """
    configurations = chosen_configurations(options)
    check_options(options, configurations)
    with TemporaryDirectory(prefix="nearfield-bench-") as work:
        place = (out if is_prepared(out / "data") else Path(work)) / "data"
        data = prepare_data(source, place, space=options.space, seed=options.seed)
        sizes = sizes_for(data.base, options.rows, quick=options.quick)
        groups = [Group(n, configuration) for n in sizes for configuration in configurations]
        return BenchPlan(
            dataset=data.name,
            rows=data.whole,
            d=data.d,
            sizes=sizes,
            ks=options.asked_ks,
            configurations=tuple(map(str, configurations)),
            groups=len(groups),
            disk_bytes=disk_bytes(data, groups, options.settings(1, 0)),
            notes=tuple(_notes(data, sizes, options)),
        )
