"""Whether a run may be loaded: the verdict of `nearfield verify` on the matrix as it is now."""

import json
from dataclasses import dataclass
from typing import Any

from nearfield.errors import DamagedArtefact, QualityGate
from nearfield.run import Run


@dataclass(frozen=True)
class Verdict:
    """What was measured; `forced`: loaded although that is missing or not good enough."""

    recall: float | None
    recall_low: float | None
    asked: float
    forced: bool


def verdict(
    run: Run, matrix_sha256: str, *, force: bool, doing: tuple[str, str] = ("load", "loaded")
) -> Verdict:
    """The verdict on the matrix with that checksum; `doing` names what is asked for in messages.

    Raises `QualityGate` when verification is missing, was of another matrix, or failed, unless
    `force`; then the verdict is marked as forced.
    """
    report = _report(run)
    problem = _problem(report, matrix_sha256)
    if problem and not force:
        raise QualityGate(
            f"{run.path} {problem}, so it isn't {doing[1]}. Run: nearfield verify "
            f"{run.path} (or {doing[0]} it as it is, which is recorded: --force)"
        )
    measured = report if report.get("matrix_sha256") == matrix_sha256 else {}
    return Verdict(
        recall=measured.get("recall"),
        recall_low=measured.get("recall_low"),
        asked=measured.get("asked", run.config.recall),
        forced=problem is not None,
    )


def _report(run: Run) -> dict[str, Any]:
    try:
        return dict(json.loads(run.verification.read_bytes()))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise DamagedArtefact(f"{run.verification} can't be read: verify again") from error


def _problem(report: dict[str, Any], matrix_sha256: str) -> str | None:
    if not report:
        return "was never verified"
    if report.get("matrix_sha256") != matrix_sha256:
        return "was verified before its matrix was made anew"
    if report.get("passed") is not True:
        return f"failed its verification (recall {report.get('recall')} of {report.get('asked')})"
    return None
