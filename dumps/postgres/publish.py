"""Which loaded run readers see: a one-row pointer, moved by one UPDATE.

Owns publishing, going back, and the record of both. Refuses to load, and to remove.
"""

from dataclasses import dataclass, replace
from typing import Any

from dumps.postgres.connection import Connection, connected
from dumps.postgres.gates import DEFAULT_LIMITS, Gate, Judged, Limits, measure, store
from dumps.postgres.history import seen_before
from dumps.postgres.schema import UNHURRIED, check_version, prepare_schema
from nearfield.errors import QualityGate, UsageError


@dataclass(frozen=True)
class PublishedRun:
    """The run that readers see: n recordings, k neighbours each, recall as it was measured.

    `gates`: what was measured to publish it now; `failed_gates`: those overridden by force.
    """

    run_id: int
    fingerprint: str
    n: int
    k: int
    space: str
    recall: float | None
    forced: bool
    gates: tuple[Gate, ...] = ()

    @property
    def failed_gates(self) -> tuple[str, ...]:
        """Names of the gates that didn't pass."""
        return tuple(gate.gate for gate in self.gates if not gate.passed)


def publish(
    dsn: str, run_id: int, *, force: bool = False, limits: Limits = DEFAULT_LIMITS
) -> PublishedRun:
    """Make a loaded run the one that readers see, if it passes the gates or is forced to.

    Never waits for readers: open snapshots keep the run that they began with. Raises `UsageError`
    for a run not loaded and `QualityGate` naming what failed; figures are stored either way.
    """
    with connected(dsn) as connection:
        with connection.cursor() as cursor:
            prepare_schema(cursor, create=False)
            cursor.execute(UNHURRIED)
        connection.commit()
        return published(connection, run_id, force=force, limits=limits)


def published(connection: Connection, run_id: int, *, force: bool, limits: Limits) -> PublishedRun:
    """`publish` on a connection without open transaction."""
    with connection.cursor() as cursor:
        run, current = _locked(cursor, run_id)
        gates = measure(cursor, run, current, limits)
        store(cursor, run_id, gates)
        failed = [gate for gate in gates if not gate.passed]
        if failed and not force:
            connection.commit()
            raise QualityGate(_refusal(run_id, failed))
        if current is None or current.run_id != run_id:
            _point_to(cursor, run_id, "publish", [gate.gate for gate in failed])
            cursor.execute(
                "UPDATE nearfield.runs SET published_at = clock_timestamp() WHERE run_id = %s",
                (run_id,),
            )
        connection.commit()
        return _current(cursor, tuple(gates))


def rollback(dsn: str) -> PublishedRun:
    """Go back to the run that readers saw before the current one; again goes further back.

    Raises `UsageError` when no earlier run is loaded.
    """
    with connected(dsn) as connection, connection.cursor() as cursor:
        prepare_schema(cursor, create=False)
        # what is gone back to is decided when no publication is under way
        cursor.execute("SELECT FROM nearfield.current_run FOR UPDATE")
        before = seen_before(cursor)
        if not before:
            raise UsageError(
                "there is no earlier published run to go back to (`nearfield runs` lists what is "
                "loaded; `nearfield publish RUN_ID` publishes any of them)"
            )
        _locked(cursor, before[0])
        _point_to(cursor, before[0], "rollback", [])
        connection.commit()
        return _current(cursor, ())


def was_rolled_back(connection: Connection, run_id: int) -> bool:
    """Whether readers were taken off the content of this run by the last rollbacks.

    A later publication ends that, of this run or another. The same content loaded again counts.
    """
    # what readers saw from the last publication on, and don't see now
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT FROM nearfield.publications"
            " WHERE fingerprint = (SELECT fingerprint FROM nearfield.runs WHERE run_id = %s)"
            " AND publication_id >="
            "  (SELECT max(publication_id) FROM nearfield.publications WHERE action = 'publish')"
            " AND publication_id < (SELECT max(publication_id) FROM nearfield.publications))",
            (run_id,),
        )
        found = bool(cursor.fetchone()[0])
    connection.commit()
    return found


def current(dsn: str) -> PublishedRun | None:
    """The run that readers see, or None before the first is published."""
    with connected(dsn) as connection, connection.cursor() as cursor:
        check_version(cursor)
        cursor.execute("SELECT run_id FROM nearfield.current_run")
        return _current(cursor, ()) if cursor.fetchone()[0] is not None else None


def _locked(cursor: Any, run_id: int) -> tuple[Judged, Judged | None]:
    """The run to publish and the published one; other publications wait, readers don't."""
    cursor.execute("SELECT run_id FROM nearfield.current_run FOR UPDATE")
    pointed = cursor.fetchone()[0]
    # a removal locks the same row to say that it has begun
    cursor.execute(
        "SELECT loaded_at IS NOT NULL AND NOT dropping FROM nearfield.runs WHERE run_id = %s"
        " FOR UPDATE",
        (run_id,),
    )
    state = cursor.fetchone()
    if state is None or not state[0]:
        why = "isn't loaded in this database" if state is None else "isn't whole"
        raise UsageError(f"run {run_id} {why}: `nearfield runs` lists what can be published")
    run = _judged(cursor, run_id)
    return run, None if pointed is None else _judged(cursor, pointed)


def _judged(cursor: Any, run_id: int) -> Judged:
    cursor.execute(
        "SELECT run_id, n, space, recall, asked, forced FROM nearfield.runs WHERE run_id = %s",
        (run_id,),
    )
    return Judged(*cursor.fetchone())


def _refusal(run_id: int, failed: list[Gate]) -> str:
    reasons = "; ".join(
        f"{gate.gate} {'not measured' if gate.figure is None else f'{gate.figure:.4g}'}"
        f"{_limit(gate)} ({gate.detail})"
        for gate in failed
    )
    return (
        f"run {run_id} isn't published: {reasons}. Readers keep what they have and the run stays "
        f"loaded. To publish it as it is, which is recorded: nearfield publish {run_id} --force"
    )


def _limit(gate: Gate) -> str:
    if gate.at_least is not None:
        return f", expected at least {gate.at_least:g}"
    return "" if gate.at_most is None else f", expected at most {gate.at_most:g}"


def _point_to(cursor: Any, run_id: int, action: str, failed: list[str]) -> None:
    cursor.execute("UPDATE nearfield.current_run SET run_id = %s", (run_id,))
    cursor.execute(
        "INSERT INTO nearfield.publications (run_id, fingerprint, action, failed_gates)"
        " SELECT run_id, fingerprint, %s, %s FROM nearfield.runs WHERE run_id = %s",
        (action, failed, run_id),
    )


def _current(cursor: Any, gates: tuple[Gate, ...]) -> PublishedRun:
    cursor.execute(
        "SELECT run_id, fingerprint, n, k, space, recall, forced"
        " FROM nearfield.runs JOIN nearfield.current_run USING (run_id)"
    )
    return replace(PublishedRun(*cursor.fetchone()), gates=gates)
