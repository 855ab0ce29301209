"""The table of `benchmark.competitors`: who is cheapest at each recall, and by how much.

Pure: from the measurements as they lie in competitors.json to Markdown.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SELFJOIN = "selfjoin"
PHASES = {
    "plan (sample, k-means)": ("prepare", "plan"),
    "partition": ("partition",),
    "join and select, residents": ("join residents",),
    "join, select and merge, visitors": ("join visitors",),
    "refine (fill short lists)": ("fill",),
    "finish (float64 distances, sort)": ("finish", "expand"),
}
"""Reported phase: phases of the self-join's own report."""


def report(measured: Mapping[str, Any]) -> str:
    """Markdown of all that was measured so far."""
    asked = sorted(measured["asked"])
    lines = ["# The self-join against the libraries", "", measured["what"], ""]
    lines += ["Machine: " + json.dumps(measured["machine"]), ""]
    for n in sorted({entry["n"] for entry in _entries(measured)}):
        lines += _ladder(measured, n, asked)
    lines += _growth(measured, asked)
    lines += _phases(measured["selfjoin"])
    return "\n".join(lines) + "\n"


def cheapest(curves: Iterable[Mapping[str, Any]], recall: float) -> Mapping[str, Any] | None:
    """The curve and effort with the least total seconds at that recall, as
    {curve, effort, recall, seconds}.
    """
    reached = [
        {
            "curve": curve,
            "effort": effort,
            "recall": found,
            "seconds": curve["build_seconds"] + searched,
        }
        for curve in curves
        for effort, found, searched in curve["points"]
        if found >= recall
    ]
    return min(reached, key=lambda option: option["seconds"], default=None)


def _entries(measured: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    own = [result["case"] for result in measured["selfjoin"]]
    return own + [curve["setting"] for curve in measured["curves"]]


def _own(measured: Mapping[str, Any], n: int, recall: float) -> Mapping[str, Any] | None:
    found = [
        r for r in measured["selfjoin"] if r["case"]["n"] == n and r["case"]["recall"] == recall
    ]
    return min(found, key=lambda result: result["seconds"], default=None)


def _ladder(measured: Mapping[str, Any], n: int, asked: list[float]) -> list[str]:
    libraries = dict.fromkeys(c["setting"]["library"] for c in measured["curves"])
    head = [
        "method",
        *(f"{recall}" for recall in asked),
        "setting at " + str(asked[len(asked) // 2]),
    ]
    lines = [
        f"## {n:,} rows: seconds for the whole matrix (recall reached; times the self-join)",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    own = {recall: _own(measured, n, recall) for recall in asked}
    cells = [f"{r['seconds']:.1f} ({r['recall']:.3f})" if r else "-" for r in own.values()]
    lines.append("| **selfjoin** | " + " | ".join(cells) + " | chosen by itself |")
    for library in libraries:
        curves = [
            c
            for c in measured["curves"]
            if c["setting"]["library"] == library and c["setting"]["n"] == n
        ]
        if curves:
            lines.append(_library_line(library, curves, own))
    return [*lines, ""]


def _library_line(
    library: str, curves: list[Mapping[str, Any]], own: Mapping[float, Mapping[str, Any] | None]
) -> str:
    cells = []
    for recall, best in own.items():
        option = cheapest(curves, recall)
        if option is None:
            reached = max((p[1] for c in curves for p in c["points"]), default=None)
            cells.append("failed" if reached is None else f"not reached ({reached:.3f})")
            continue
        times = f"; {option['seconds'] / best['seconds']:.1f}x" if best else ""
        cells.append(f"{option['seconds']:.1f} ({option['recall']:.3f}{times})")
    middle = cheapest(curves, sorted(own)[len(own) // 2])
    return f"| {library} | " + " | ".join(cells) + f" | {_setting_text(middle)} |"


def _setting_text(option: Mapping[str, Any] | None) -> str:
    if option is None:
        return "-"
    curve = option["curve"]
    parameters = ", ".join(f"{name} {value}" for name, value in curve["setting"]["parameters"])
    effort = f"effort {option['effort']}; " if curve["timed_rows"] else ""
    asked = f", {curve['timed_rows']:,} rows timed" if curve["timed_rows"] else ""
    return f"{parameters or 'defaults'}; {effort}build {curve['build_seconds']:.1f} s{asked}"


def _growth(measured: Mapping[str, Any], asked: list[float]) -> list[str]:
    """Exponents of seconds in n, by least squares on logarithms, where two sizes are there."""
    lines = ["## Growth: exponent of seconds in n", ""]
    lines += ["| method | " + " | ".join(map(str, asked)) + " |", "|---" * (len(asked) + 1) + "|"]
    sizes = sorted({entry["n"] for entry in _entries(measured)})
    libraries = dict.fromkeys(c["setting"]["library"] for c in measured["curves"])
    for method in (SELFJOIN, *libraries):
        cells = []
        for recall in asked:
            seconds = {n: _seconds(measured, method, n, recall) for n in sizes}
            logs = np.log([(n, s) for n, s in seconds.items() if s])
            apart = len(logs) > 1
            cells.append(f"{np.polyfit(logs[:, 0], logs[:, 1], 1)[0]:.2f}" if apart else "-")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _seconds(measured: Mapping[str, Any], method: str, n: int, recall: float) -> float | None:
    if method == SELFJOIN:
        own = _own(measured, n, recall)
        return own["seconds"] if own else None
    curves = [
        c
        for c in measured["curves"]
        if c["setting"]["library"] == method and c["setting"]["n"] == n
    ]
    option = cheapest(curves, recall)
    return option["seconds"] if option else None


def _phases(results: Iterable[Mapping[str, Any]]) -> list[str]:
    head = ["n", "asked", "recall", "wall s", "CPU s", *PHASES, "peak MiB", "of it data MiB"]
    lines = ["## Where the self-join's time goes (wall seconds)", ""]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for result in results:
        case = result["case"]
        cells = [
            f"{case['n']:,} x {case['d']}", str(case["recall"]), f"{result['recall']:.4f}",
            f"{result['seconds']:.1f}", f"{result['cpu_seconds']:.1f}",
            *(
                f"{sum(result['phases'].get(name, 0) for name in names):.2f}"
                for names in PHASES.values()
            ),
            f"{result['peak_bytes'] / 2**20:,.0f}", f"{result['held_bytes'] / 2**20:,.0f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]
