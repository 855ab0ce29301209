"""The report as one HTML page that needs nothing else: no request, no other file, no network.

Owns the page's order and its escaping: text enters through `_text` or `_table` only. The page's
policy lets run exactly the one script that is part of it. Refuses to compute figures.
"""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from benchmark.choice import Choice
from benchmark.report.advice import RECALL, Advice, Pairs, advices, main_k
from benchmark.report.curves import COSTS, Curve, curves
from benchmark.report.points import charted, fullest, points_json, unbeaten
from benchmark.report.tables import (
    Table,
    at_recall,
    failures_table,
    first_use_table,
    growth_table,
    left_out_table,
    libraries_table,
    limited_table,
    machine_table,
    without_figures,
)
from benchmark.results.outcome import LEVELS, Outcome

HERE = Path(__file__).parent
MOST_BYTES = 5_000_000
SHORT_TABLE = 12
"""Rows up to which a table of what went wrong stands open."""
CHARTS = (
    ("speed", "Recall and speed", "vectors per second, higher is better"),
    ("total", "Recall and total time for all", "build plus the search of every row"),
    ("build", "Recall and build time", "lower is better"),
    ("memory", "Recall and memory", "peak resident, building or searching"),
)
BATCHES = {0: "every row (all)", 1: "one query at a time"}


@dataclass(frozen=True)
class Content:
    """What a page is made of. facts: `bench.json`. pictures: names of PNG files beside the page."""

    outcomes: Sequence[Outcome]
    choice: Choice | None
    facts: dict[str, Any]
    pictures: Sequence[str] = ()

    @property
    def full(self) -> int:
        """Rows of the whole set, as far as is known."""
        known = self.facts.get("data", {}).get("whole", 0)
        return int(known) or max((one.n for one in self.outcomes), default=0)

    @property
    def lines(self) -> list[Curve]:
        """How costs grow."""
        return curves(self.outcomes, self.full)

    @property
    def methods(self) -> list[str]:
        """Those with figures, in the order of their colours and shapes."""
        return sorted({one.method for one in charted(self.outcomes)})


def page(content: Content) -> bytes:
    """The page. Beyond 5 MB the charts keep per method what it doesn't beat itself, and say so."""
    shown = charted(content.outcomes)
    whole = _page(content, shown, "")
    if len(whole) < MOST_BYTES:
        return whole
    kept = unbeaten(shown)
    note = (
        f"{len(shown) - len(kept):,} of {len(shown):,} points that the same method beats are only "
        "in outcomes.parquet: with them this page would be too large."
    )
    return _page(content, kept, note)


def _page(content: Content, shown: Sequence[Outcome], note: str) -> bytes:
    style = (HERE / "report.css").read_text(encoding="utf-8")
    script = (HERE / "report.js").read_text(encoding="utf-8")
    name = str(content.facts.get("data", {}).get("name") or _named(content.outcomes))
    body = _body(content, shown, note)
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(name)}: nearest neighbours measured</title>\n"
        f"<style>{style}</style>\n</head>\n<body>\n{_head(content, name)}\n{body}\n"
        + (f"<script>{script}</script>\n" if shown else "")
        + "</body>\n</html>\n"
    ).encode()


def _digest(source: str) -> str:
    return f"sha256-{b64encode(sha256(source.encode()).digest()).decode()}"


def _text(words: object) -> str:
    return escape(str(words))


def _named(outcomes: Sequence[Outcome]) -> str:
    return outcomes[0].dataset if outcomes else "Benchmark"


def _head(content: Content, name: str) -> str:
    one = next(iter(content.outcomes), None)
    about = f"{content.full:,} rows" if one is None else ""
    if one is not None:
        measured = [row.n for row in content.outcomes if row.measured]
        sizes = ", ".join(f"{n:,}" for n in sorted(set(measured)))
        about = f"{content.full:,} rows of {one.d:,} numbers, space {one.space}; " + (
            f"measured on {sizes} of them; {len(measured):,} points with figures"
            if measured
            else "nothing measured"
        )
    return f'<h1>{_text(name)}</h1>\n<p class="soft">{_text(about)}</p>'


def _body(content: Content, shown: Sequence[Outcome], note: str) -> str:
    parts = []
    if not content.outcomes:
        parts.append(_said("Nothing was measured here yet, so there is nothing to recommend."))
    elif not shown:
        parts.append(_said("No configuration gave figures; the reasons stand below."))
    else:
        parts += [_recommended(content, shown), _charts(content, shown, note)]
        parts += [_levels(shown), _growth(content)]
    parts += [_left_out(content.outcomes), _failures(content.outcomes)]
    parts += [_limited(content.outcomes), _circumstances(content)]
    return "\n".join(part for part in parts if part)


def _said(sentence: str) -> str:
    capital = sentence[:1].upper() + sentence[1:]
    return f'<p class="advice">{_breakable(capital)}</p>'


def _breakable(words: str) -> str:
    """Text whose long parameters may break behind commas, brackets, underscores and equal signs."""
    return re.sub(r"(?<=\w)[,(_=](?=\w)", r"\g<0><wbr>", _text(words))


def _recommended(content: Content, shown: Sequence[Outcome]) -> str:
    found = advices(content.choice, content.outcomes)
    first = main_k([one.k for one in shown])
    main = next(one for one in found if one.k == first)
    cards = _card(f"All neighbours, k = {first:,}", main.every)
    cards += _card(f"Queries, k = {first:,}", main.queries)
    return f'{_said(main.sentence)}\n<div class="cards">{cards}</div>{_others(found, main)}'


def _others(found: Sequence[Advice], main: Advice) -> str:
    rest = [one for one in found if one is not main]
    if not rest:
        return ""
    items = "".join(
        f"<li>{_text(one.sentence[:1].upper() + one.sentence[1:])}</li>" for one in rest
    )
    return f'<details><summary>For other k</summary><ul class="others">{items}</ul></details>'


def _card(title: str, pairs: Pairs) -> str:
    if not pairs:
        return ""
    inside = "".join(f"<dt>{_text(name)}</dt><dd>{_breakable(value)}</dd>" for name, value in pairs)
    return f'<div class="card"><h3>{_text(title)}</h3><dl>{inside}</dl></div>'


def _charts(content: Content, shown: Sequence[Outcome], note: str) -> str:
    sizes = {n: f"{n:,}" for n in sorted({one.n for one in shown})}
    ks = {k: str(k) for k in sorted({one.k for one in shown})}
    batches = {
        batch: BATCHES.get(batch, f"batches of {batch:,}")
        for batch in sorted({one.batch for one in shown})
    }
    queried = [batch for batch in batches if batch]
    k = main_k(list(ks))
    controls = (
        _select("n", "rows", sizes, fullest([one for one in shown if one.k == k]))
        + _select("k", "k", ks, k)
        + _select("batch", "vectors handed over", batches, queried[0] if queried else 0)
        + _select("axis", "recall axis", {"plain": "even", "close": "close to 1"}, "plain")
    )
    figures = "".join(_figure(*chart) for chart in CHARTS)
    lines = content.lines
    data = points_json(shown, lines, content.methods, content.full)
    return (
        "<h2>Recall and its price</h2>\n"
        '<p class="soft">A line joins what no other configuration of the method beats; pale points '
        "are beaten. Point at one, or tap it, to see its configuration; press a method to hide "
        f"it. {_text(note)}</p>\n"
        f'<div class="controls">{controls}</div>\n'
        '<div class="legend" role="group" aria-label="Methods"></div>\n'
        f'<div class="charts">{figures}</div>\n<div id="tip" role="status" hidden></div>\n'
        f'<script type="application/json" id="data">{data}</script>'
    )


def _select(name: str, title: str, values: dict[Any, str], chosen: object) -> str:
    options = "".join(
        f'<option value="{_text(value)}"{" selected" if value == chosen else ""}>'
        f"{_text(words)}</option>"
        for value, words in values.items()
    )
    return f'<label>{_text(title)}<select id="pick-{name}">{options}</select></label>'


def _figure(chart: str, title: str, subtitle: str) -> str:
    return (
        f'<figure data-chart="{chart}"><figcaption>{_text(title)} <span>{_text(subtitle)}</span>'
        f'</figcaption><svg role="img" aria-label="{_text(title)}"></svg></figure>'
    )


def _levels(shown: Sequence[Outcome]) -> str:
    levels = {f"{recall:.2f}": f"at least {recall:.2f}" for recall in LEVELS}
    parts = [
        "<h2>Cheapest at a recall</h2>",
        '<p class="soft">Per method the cheapest configuration that reaches the recall, for the '
        "size and k chosen above; a dash: none does. 1% more: what it takes to add so many rows, "
        "or to build anew where a library can't.</p>",
        f'<div class="controls">{_select("recall", "recall", levels, f"{RECALL:.2f}")}</div>',
    ]
    for n, k in sorted({(one.n, one.k) for one in shown}):
        here = [one for one in shown if (one.n, one.k) == (n, k)]
        for level, words in levels.items():
            every, queries = at_recall(here, float(level))
            title = f"{n:,} rows, k = {k:,}, recall {words}"
            inside = _captioned(f"Neighbours of every row: {title}", every)
            inside += _captioned(f"Queries, one at a time: {title}", queries)
            where = f'data-n="{n}" data-k="{k}" data-recall="{level}"'
            parts.append(f"<section {where}>{inside}</section>")
    return "\n".join(parts)


def _growth(content: Content) -> str:
    lines = content.lines
    if not lines:
        return ""
    costs = {cost: COSTS[cost].title for cost in COSTS if any(one.cost == cost for one in lines)}
    sections = "".join(
        f'<section data-k="{k}" data-cost="{cost}">'
        f"{_captioned(f'{title[:1].upper()}{title[1:]}, k = {k:,}', table)}</section>"
        for k in sorted({one.k for one in lines})
        for cost, title in costs.items()
        for table in [growth_table(lines, k, cost, content.full)]
    )
    return (
        "<h2>Growth with the number of rows</h2>\n"
        f'<p class="soft">What recall {RECALL} costs at each size with the configuration that is '
        "cheapest there: every repetition a point, a power law through them, its 95% interval for "
        "one more measurement. Beyond the largest size this believes that the law goes on. "
        "The dotted upright line stands at all rows. A single size says nothing about growth; two "
        "sizes without repetitions give no interval.</p>\n"
        f'<div class="controls">{_select("cost", "cost", costs, next(iter(costs)))}</div>\n'
        f"{_figure('growth', 'Cost and rows', 'both axes logarithmic')}\n{sections}"
    )


def _failures(outcomes: Sequence[Outcome]) -> str:
    table = failures_table(outcomes)
    if not table.rows:
        return "<h2>Without figures</h2>\n<p>All that was tried gave figures.</p>" * bool(outcomes)
    if len(table.rows) <= SHORT_TABLE:
        return f"<h2>Without figures</h2>\n{_table(table)}"
    counted = Counter(str(one.status) for one in without_figures(outcomes))
    words = ", ".join(f"{count:,} {status}" for status, count in counted.most_common())
    return (
        "<h2>Without figures</h2>\n"
        f"<details><summary>{_text(words)}</summary>{_table(table)}</details>"
    )


def _left_out(outcomes: Sequence[Outcome]) -> str:
    table = left_out_table(outcomes)
    if not table.rows:
        return ""
    return (
        "<h2>Left out as of no use</h2>\n<p>A smaller size showed these configurations to be no "
        "better than others of their method, or far behind all; or a way to all rows would take "
        "many times what the fastest took. <code>--full</code> measures them.</p>\n"
        f"<details><summary>{len(table.rows):,} configurations and efforts</summary>"
        f"{_table(table)}</details>"
    )


def _limited(outcomes: Sequence[Outcome]) -> str:
    table = limited_table(outcomes)
    if not table.rows:
        return ""
    return (
        "<h2>Under a memory limit below the index' size</h2>\n<details><summary>"
        f"{len(table.rows):,} points</summary>{_table(table)}</details>"
    )


def _circumstances(content: Content) -> str:
    facts = content.facts
    notes = "".join(f"<li>{_text(note)}</li>" for note in facts.get("notes", []))
    names = "".join(f"<li>{_text(name)}</li>" for name in facts.get("configurations", []))
    pictures = ", ".join(content.pictures) or "none: matplotlib (the extra bench) isn't installed"
    return (
        "<h2>Circumstances</h2>\n"
        + (f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "")
        + _captioned("Machine and settings", machine_table(facts, content.outcomes))
        + _captioned("Libraries", libraries_table(facts))
        + _first_uses(content.outcomes)
        + (
            f"<details><summary>Grid of the last run</summary><ul>{names}</ul></details>"
            * bool(names)
        )
        + (
            f'<p class="soft">Pictures beside this page: {_text(pictures)}.</p>'
            * bool(content.methods)
        )
    )


def _first_uses(outcomes: Sequence[Outcome]) -> str:
    table = first_use_table(outcomes)
    if not table.rows:
        return ""
    return (
        f"{_captioned('Libraries that compile themselves', table)}"
        '<p class="soft">What a cold start costs: Python, imports and compiling, before the first '
        "answer. No figure above holds any of it.</p>"
    )


def _captioned(title: str, table: Table) -> str:
    return f"<h3>{_text(title)}</h3>{_table(table)}" if table.rows else ""


def _table(table: Table) -> str:
    def row(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="{"words" if place < table.words else "figure"}">{_text(cell)}</{tag}>'
            for place, cell in enumerate(cells)
        )

    head = f"<thead><tr>{row('th', table.head)}</tr></thead>" if any(table.head) else ""
    rows = "".join(f"<tr>{row('td', cells)}</tr>" for cells in table.rows)
    return f'<div class="scroll" tabindex="0"><table>{head}<tbody>{rows}</tbody></table></div>'
