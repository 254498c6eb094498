"""Tables as CSV and Markdown."""

from __future__ import annotations

import csv
import math

from hypothesis import given
from hypothesis import strategies as st

from odernn.tables import csv_text, markdown


def test_rows_may_lack_columns_which_stand_in_the_order_in_which_they_come_up():
    assert (
        csv_text([{"m": 2, "error": 0.5}, {"error": math.inf, "law": "power, law"}]) == 'm,error,law\n2,0.5,\n,inf,"power, law"\n'
    )


@given(st.lists(st.floats(), min_size=1))
def test_floats_come_back_as_they_were(values):
    rows = list(csv.DictReader(csv_text([{"x": value} for value in values]).splitlines()))
    assert [repr(float(row["x"])) for row in rows] == [repr(value) for value in values]


def test_a_markdown_table_may_have_columns_without_names():
    assert markdown(("claim", "", "evidence"), [("a", "held", "b")]) == "| claim | | evidence |\n|---|---|---|\n| a | held | b |"
