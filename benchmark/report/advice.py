"""What the report recommends, in a sentence and with its evidence.

For the matrix that is what `choice.toml` says at the recall a build asks for; for queries the
fastest way, one query at a time, at the largest measured size. Pure; refuses to format pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.candidates import Candidate
from benchmark.choice import Choice, Wanted, choose, said
from benchmark.report.words import added, amount, interval, seconds
from benchmark.results.outcome import Outcome
from nearfield.errors import QualityGate

RECALL = 0.95
"""What `nearfield build` asks for unless told otherwise; so with `USUAL_K`."""
USUAL_K = 100

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Advice:
    """The recommendation for one k: a sentence, and names with values for each workload."""

    k: int
    sentence: str
    every: Pairs
    queries: Pairs


def advices(choice: Choice | None, outcomes: Sequence[Outcome]) -> list[Advice]:
    """An advice per k that was measured, ascending; that of `main_k` goes first on the page."""
    measured = [one for one in outcomes if one.measured and not one.memory_limit_bytes]
    return [_advice(choice, measured, k) for k in sorted({one.k for one in measured})]


def main_k(ks: Sequence[int]) -> int:
    """The k of the first sentence: the usual one, else the nearest from above, else the largest."""
    return next((k for k in sorted(ks) if k >= USUAL_K), max(ks))


def _advice(choice: Choice | None, measured: Sequence[Outcome], k: int) -> Advice:
    here = [one for one in measured if one.k == k]
    first, every = _for_all(choice, here, k)
    second, queries = _for_queries(here)
    return Advice(k, f"{first}; {second}.", every, queries)


def _for_all(choice: Choice | None, here: Sequence[Outcome], k: int) -> tuple[str, Pairs]:
    rivals = _rivals(choice, k)
    if choice is None or not rivals:
        return f"for the matrix (k = {k}) {_nothing(choice, here)}", ()
    goal = f"for the matrix of all {choice.n:,} rows (k = {k}, recall {RECALL})"
    try:
        candidate = choose(choice, Wanted(k, RECALL))
    except QualityGate:
        candidate = max(rivals, key=lambda one: one.recall)
        words = f"{goal} nothing measured reaches that recall, nearest comes {said(candidate)}"
        return words, _evidence(candidate, choice, here)
    words = f"{goal} use {said(candidate)}"
    if candidate.measured_n != choice.n:
        assumed = candidate.measured_sizes < 2
        guess = ", of no other size: how it grows is assumed, not measured" if assumed else ""
        words += f" (foretold from {candidate.measured_n:,} rows{guess})"
    return words, _evidence(candidate, choice, here)


def _rivals(choice: Choice | None, k: int) -> list[Candidate]:
    return [] if choice is None else [one for one in choice.able if one.k == k]


def _nothing(choice: Choice | None, here: Sequence[Outcome]) -> str:
    """Why there is nothing to recommend: nobody looked, or not at what a build can do."""
    if choice is None:
        return "there is no choice.toml: the same `nearfield bench` again writes it"
    if not any(one.workload == "all" for one in here):
        return "no way was measured"
    return f"no way was measured that `nearfield build` has in space {choice.space}"


def _evidence(candidate: Candidate, choice: Choice, here: Sequence[Outcome]) -> Pairs:
    way = (candidate.method, candidate.build, candidate.search, candidate.measured_n)
    found = [
        one
        for one in here
        if one.workload == "all" and (one.method, one.build, one.search, one.n) == way
    ]
    measured = candidate.measured_n == choice.n
    parts = [
        ("method", candidate.method),
        ("build parameters", _spaced(candidate.build)),
        ("search effort", _spaced(candidate.search)),
    ]
    parts += [("recall", _recall(one)) for one in found[:1]]
    how = "measured" if measured else f"foretold for {choice.n:,}"
    parts += [
        (f"time ({how})", f"{seconds(candidate.time_s)}, {_range(candidate)}"),
        (f"peak memory ({how})", amount(candidate.memory_bytes)),
    ]
    parts += [
        ("first use", f"{seconds(one.cold_s)} more, to compile itself")
        for one in found[:1]
        if one.cold_s
    ]
    if not measured:
        parts += [
            (f"measured on {one.n:,} rows", f"{seconds(one.total_s)}, {amount(_peak(one))}")
            for one in found[:1]
        ]
    return tuple(parts)


def _range(candidate: Candidate) -> str:
    if candidate.time_high_s is None:
        return "interval unknown (too few sizes)"
    return f"95% {seconds(candidate.time_low_s)} to {seconds(candidate.time_high_s)}"


def _for_queries(here: Sequence[Outcome]) -> tuple[str, Pairs]:
    here = [one for one in here if one.workload == "queries"]
    asked = [one for one in here if one.batch == 1 and one.qps]
    if not asked:
        return "queries weren't measured", ()
    n = max(one.n for one in asked)
    asked = [one for one in asked if one.n == n]
    good = [one for one in asked if (one.recall or 0) >= RECALL]
    if good:
        best = max(good, key=lambda one: one.qps or 0)
        words = "for queries use"
    else:
        best = max(asked, key=lambda one: one.recall or 0)
        words = "for queries nothing measured reaches that recall, nearest comes"
    sentence = (
        f"{words} {best.label} with recall {best.recall:.3f}, {best.qps:,.0f} queries/s one at a "
        f"time and {amount(best.peak_bytes)} on {n:,} rows"
    )
    there, known = len({one.method for one in asked}), len({one.method for one in here})
    if 2 * there <= known:
        sentence += f" (only {there} of {known} methods were measured on so many)"
    batched = [one for one in here if one.batch > 1 and _way(one) == _way(best)]
    parts = [
        ("method", best.method),
        ("build parameters", _spaced(best.build)),
        ("search effort", _spaced(best.search)),
        ("recall", _recall(best)),
        ("one at a time", f"{best.qps:,.0f} queries/s"),
        ("time of a query", _percentiles(best)),
    ]
    parts += [
        (f"in batches of {one.batch:,}", f"{one.qps:,.0f} queries/s")
        for one in sorted(batched, key=lambda one: -(one.qps or 0))[:1]
    ]
    parts += [
        ("build time", seconds(best.build_s)),
        ("1% more rows", added(best)),
        ("peak memory", f"{amount(best.peak_bytes)}, building {amount(best.build_peak_bytes)}"),
        ("index on disk", amount(best.index_bytes)),
        ("compared", f"{there} {'method' if there == 1 else 'methods'}, on {n:,} rows"),
    ]
    return sentence, tuple(parts)


def _percentiles(outcome: Outcome) -> str:
    times = (("p50", outcome.p50_ms), ("p95", outcome.p95_ms), ("p99", outcome.p99_ms))
    return ", ".join(f"{name} {taken:.3g} ms" for name, taken in times if taken is not None)


def _spaced(parameters: str) -> str:
    return parameters.replace(",", ", ") or "none"


def _way(outcome: Outcome) -> tuple[str, str, str, int]:
    return outcome.method, outcome.build, outcome.search, outcome.n


def _recall(outcome: Outcome) -> str:
    shown = interval(outcome.recall, outcome.recall_low, outcome.recall_high)
    return f"{shown} on {outcome.checked or 0:,} checked rows"


def _peak(outcome: Outcome) -> int | None:
    return max((b for b in (outcome.peak_bytes, outcome.build_peak_bytes) if b), default=None)
