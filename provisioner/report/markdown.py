"""Pages in Markdown: one lease (the page of its proof), or several side by side.

The page of one lease is made by `evidence.render` and is the same bytes as in its evidence folder. The comparison is
made of the same rows as the terminal's, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

from provisioner.evidence import limits, render, words
from provisioner.report import Record
from provisioner.report.tables import COLUMNS, compare_rows


def lease(record: Record) -> bytes:
    """`report.md` of one lease."""
    return render.report(record.statement, record.results)


def compare(records: Sequence[Record]) -> bytes:
    """Several leases in one table, with what is not shown of any of them below it."""
    parts = ["# gpulease: leases compared", "", *render.table(COLUMNS, compare_rows(records))]
    parts += ["Latency in milliseconds on the machine itself where it was measured there. Amounts are upper bounds at list price.", ""]
    codes = {code for record in records for code in record.predicate["limits"]}
    said = sorted({limits.sentence(words.text(code)) for code in codes})
    parts += ["## What this does not show", "", *(f"- {render.cell(sentence, 400)}" for sentence in said), ""]
    return "\n".join(parts).encode()
