"""How far a run is, and what to do next; without any of the code that builds."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nearfield.api.changes import run_drift
from nearfield.errors import MissingFile, UsageError
from nearfield.locations import Location, location
from nearfield.run import UPDATE, Run, RunConfig, open_run


@dataclass(frozen=True)
class RunStatus:
    """How far a run is. `stage` is one of: unfinished, built, failed verification, verified.

    rebuild: why a run that was updated should be built anew, in sentences; empty: it needn't.
    """

    run: Location
    stage: str
    config: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    verification: Mapping[str, Any] | None
    advice: str
    rebuild: tuple[str, ...] = ()


def status(run: Path | str) -> RunStatus:
    """How far a run is, what each step took, and what to do next.

    Raises `MissingFile` when it isn't a run and `DamagedArtefact` when a file of it isn't whole.
    """
    opened = open_run(location(run))
    try:
        opened.finished_matrix(verify=False)
        verification = _verification(opened)
    except MissingFile:
        stage, verification = "unfinished", None
    else:
        stage = {None: "built", True: "verified", False: "failed verification"}[
            None if verification is None else bool(verification["passed"])
        ]
    config, steps = opened.config, tuple(opened.steps())
    run_path, vectors = shlex.quote(str(opened.path)), shlex.quote(config.vectors)
    unfinished = _made_otherwise(opened)
    advice = {
        "unfinished": unfinished
        or f"nearfield build {vectors} --out {run_path} -k {config.k} "
        f"--recall {config.recall} --method {shlex.quote(config.method)}  (resumes)",
        "built": f"nearfield verify {run_path}",
        "failed verification": f"nearfield build {vectors} --out OTHER -k {config.k} with a higher "
        f"--recall than {config.recall}, or --method exact",
        "verified": f"nearfield load {run_path}",
    }[stage]
    if stage == "verified" and steps and steps[-1]["step"] == "load":
        advice = f"nearfield query RECORDING_ID --run {run_path}  (loaded already)"
    facts = {name: getattr(config, name) for name in RunConfig.__dataclass_fields__}
    far = None if stage == "unfinished" else run_drift(run)
    due = () if far is None else far.due
    return RunStatus(opened.path, stage, facts, steps, verification, advice, due)


def _made_otherwise(run: Run) -> str:
    """What to do about an unfinished run that no build makes; "" for others."""
    if isinstance(run.path, Path) and (run.path / UPDATE).exists():
        return "the same `nearfield update` once more  (resumes)"
    if run.config.method.startswith("index "):
        return "the same `nearfield index ... --matrix` once more  (resumes)"
    return ""


def _verification(run: Run) -> Mapping[str, Any] | None:
    """The last verification, if it can be read and was of the matrix as it is now."""
    try:
        report = json.loads(run.verification.read_bytes())
    except UsageError:
        raise
    except (FileNotFoundError, ValueError):
        return None
    current = run.finished_matrix(verify=False).files[run.matrix_at.name].sha256
    return report if report["matrix_sha256"] == current else None
