"""Tables as text: CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV under a line of their names, in the order in which these come up; what a row lacks stays empty.

    Floats are written with as many digits as tell them from every other float64.

        csv_text([{"m": 2, "error": 0.5}, {"m": 4, "error": 0.25}])     # 'm,error\\n2,0.5\\n4,0.25\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table under the names of its columns, which may be empty."""
    head = "|" + "".join(f" {name} |" if name else " |" for name in columns)
    return "\n".join([head, "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)])
