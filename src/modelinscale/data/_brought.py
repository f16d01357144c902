"""What a collect brought so far, for its report and its last words: counts, reasons with examples, cleaned cells, summaries of columns. Of bounded size."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from modelinscale.data.contract import Contract, Judged
from modelinscale.data.report import Columns

if TYPE_CHECKING:
    import pyarrow as pa

N_EXAMPLES = 3
KEPT_REASONS = 1000
"""Different reasons that are told apart; those that come up later are counted together."""
OTHER = "for other reasons"


class Brought:
    """The rows judged since a collect, or a follower, began."""

    def __init__(self, contract: Contract, *, columns: bool) -> None:
        """``columns``: whether those of the good rows are summarised."""
        self.n_read = self.n_good = self.n_bad = self.n_dropped = 0
        self.reasons: Counter[tuple[str, str]] = Counter()
        """Faults by column and reason."""
        self.changed: Counter[str] = Counter()
        """Cells that cleaners changed, by column."""
        self.examples: dict[tuple[str, str], list[str]] = {}
        """Values of quarantined cells, some for each column and reason."""
        self.columns = Columns(contract.schema, contract.hidden) if columns else None

    def see(self, judged: Judged, n_read: int, changed: Mapping[str, int]) -> None:
        """The rows of one commit, of which ``n_read`` were read."""
        self.n_read += n_read
        self.n_good += judged.good.num_rows
        self.n_bad += judged.n_bad
        self.n_dropped += judged.n_dropped
        self.changed.update(changed)
        for (column, reason), n in reasons_of(judged).items():
            known = (column, reason) in self.reasons or len(self.reasons) < KEPT_REASONS
            self.reasons[column, reason if known else OTHER] += n
        self._note_examples(judged.entries)
        if self.columns is not None:
            self.columns.see(judged.good)

    def _note_examples(self, entries: "pa.Table") -> None:
        for line in entries.slice(0, 2000).to_pylist():
            if (line["column"], line["reason"]) not in self.reasons:
                continue
            some = self.examples.setdefault((line["column"], line["reason"]), [])
            if len(some) < N_EXAMPLES and line["value"] and line["value"] not in some:
                some.append(line["value"])

    def top(self, n: int | None = None) -> list[tuple[str, str, int]]:
        """Column, reason, faults, the most frequent first."""
        return most_frequent(self.reasons, n)


def reasons_of(judged: Judged) -> Counter[tuple[str, str]]:
    """Faults by column and reason."""
    found: Counter[tuple[str, str]] = Counter()
    if judged.n_bad:
        counts = judged.entries.group_by(["column", "reason"]).aggregate([([], "count_all")])
        for column, reason, n in zip(*(counts.column(c).to_pylist() for c in ("column", "reason", "count_all")), strict=True):
            found[column, reason] += n
    return found


def most_frequent(reasons: Mapping[tuple[str, str], int], n: int | None = None) -> list[tuple[str, str, int]]:
    """Column, reason, count, the most frequent first. By count, then name: ties must not depend on the order of arrival."""
    return [(*key, count) for key, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))][:n]
