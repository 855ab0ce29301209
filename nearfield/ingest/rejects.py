"""Everything that ingest turned away: counted by reason, listed in a file.

Owns the rejects file (CSV: source, item, reason, detail) and the gate on the rejected share.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nearfield.errors import InputRejected
from nearfield.files import atomic_path


@dataclass(frozen=True)
class Reject:
    """One document or row turned away. `reason` is a short fixed phrase, `detail` what was seen."""

    source: str
    item: str
    reason: str
    detail: str = ""


@dataclass
class RejectLog:
    """Collects rejects; keeps at most `listed_limit` of them in memory, counts all."""

    listed_limit: int = 100_000
    listed: list[Reject] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Number of rejects."""
        return self.counts.total()

    def add(self, reject: Reject) -> None:
        """Count and list one reject."""
        self.counts[reject.reason] += 1
        if len(self.listed) < self.listed_limit:
            self.listed.append(reject)

    def extend(self, rejects: Iterable[Reject]) -> None:
        """Count and list several."""
        for reject in rejects:
            self.add(reject)

    def merge(self, other: "RejectLog") -> None:
        """Take over what another log counted and listed."""
        self.counts.update(other.counts)
        self.listed += other.listed[: self.listed_limit - len(self.listed)]

    def write(self, path: Path) -> None:
        """Write the listed rejects as CSV with a header; a last line says if some aren't listed."""
        with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("source", "item", "reason", "detail"))
            for reject in self.listed:
                writer.writerow((reject.source, reject.item, reject.reason, reject.detail))
            if self.total > len(self.listed):
                more = f"{self.total - len(self.listed):,} more are counted in the manifest only"
                writer.writerow(("", "", "not listed", more))

    def gate(self, accepted: int, max_share: float, listed_in: Path) -> None:
        """Raise `InputRejected` when nothing was accepted or more than `max_share` was rejected."""
        seen = accepted + self.total
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common())
        if accepted == 0:
            raise InputRejected(
                f"expected at least one usable recording, got none out of {seen:,}"
                + (f" ({reasons}; listed in {listed_in})" if seen else ": the input is empty")
            )
        if self.total > max_share * seen:
            raise InputRejected(
                f"{self.total:,} of {seen:,} items were rejected, more than the share of "
                f"{max_share:.3g} that is allowed: {reasons}. They are listed in {listed_in}; "
                "mend the input, choose another --space, or raise --max-rejected"
            )
