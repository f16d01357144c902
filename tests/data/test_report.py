"""The report of a collect: true, mergeable, small, safe to open, and silent about what is personal."""

import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modelinscale.core.schema import Column, Schema
from modelinscale.data import _report_page, _report_words
from modelinscale.data.arrow import arrow_schema
from modelinscale.data.report import SAMPLE_ROWS, Columns, report

SCHEMA = Schema(
    columns=(
        Column(name="x", type="float"),
        Column(name="n", type="int"),
        Column(name="city", type="string"),
        Column(name="flag", type="bool"),
        Column(name="at", type="time"),
        Column(name="contact", type="string"),
        Column(name="phone", type="int"),
        Column(name="v", type="vector", width=2),
    )
)
FACTS: dict[str, Any] = {
    "table": "shop <script>",
    "time": "2024-01-01 00:00:00+00:00",
    "made_by": "1",
    "n_read": 10,
    "n_added": 8,
    "n_quarantined": 1,
    "n_dropped": 1,
    "n_rows": 8,
    "reasons": [{"column": "x", "reason": "not above 0", "n": 1, "examples": ["<b>|"]}],
    "warnings": ["a check warns: 3 × x: <odd>."],
    "changed": [{"column": "city", "n": 4, "share": 0.4, "by": "trim"}],
}


def rows(n: int, shift: float = 0.0) -> pa.Table:
    i = np.arange(n)
    cells = {
        "x": [None if k % 10 == 0 else float(k % 100) + shift for k in i],
        "n": (i % 7).tolist(),
        "city": [["Bonn", "Ulm | <i>", "Köln"][k % 3] for k in i],
        "flag": (i % 2 == 0).tolist(),
        "at": [datetime(2024, 1, 1 + k % 28) for k in i.tolist()],
        "contact": [f"p{k}@example.org" for k in i],
        "phone": (i + 3_000_000).tolist(),
        "v": [[1.0, 2.0]] * n,
    }
    return pa.table(cells, schema=arrow_schema(SCHEMA))


def columns(*parts: pa.Table, hidden: tuple[str, ...] = ()) -> Columns:
    found = Columns(SCHEMA, hidden)
    for part in parts:
        found.see(part)
    return found


def test_a_report_says_what_the_rows_are() -> None:
    found = columns(rows(700)).plain()
    x = found["x"]
    assert (x["n"], x["missing_share"], x["low"], x["high"], x["n_distinct"], x["about"]) == (700, 0.1, 1.0, 99.0, 90, False)
    assert x["mean"] == pytest.approx(np.mean([k % 100 for k in range(700) if k % 10]))
    assert sum(x["bars"]["counts"]) == 630
    assert found["city"]["top"] == [["Bonn", 234], ["Köln", 233], ["Ulm | <i>", 233]]
    assert [v for v, _ in found["flag"]["top"]] == ["false", "true"]
    assert found["at"]["low"] == 1704067200000000
    assert found["v"]["n"] == 700


def test_moments_by_the_thousand_have_a_mean_among_them() -> None:
    found = columns(rows(6000)).plain()["at"]
    assert found["low"] < found["mean"] < found["high"]


def test_parts_are_reported_as_the_whole() -> None:
    table = rows(1000)
    whole = columns(table).plain()
    for cut in (0, 1, 300, 1000):
        parts = columns(table.slice(0, cut), table.slice(cut)).plain()
        for name, one in whole.items():
            assert {k: v for k, v in parts[name].items() if k != "mean"} == {k: v for k, v in one.items() if k != "mean"}
            assert parts[name].get("mean") == pytest.approx(one.get("mean"))


def test_large_commits_are_sampled_and_said_to_be() -> None:
    n = 3 * SAMPLE_ROWS
    found = columns(pa.concat_tables([rows(1000)] * (n // 1000 + 1))).plain()
    assert found["x"]["sampled"]
    assert found["x"]["n_distinct"] == 90
    assert found["city"]["top"][0][1] < n / 2
    many = Columns(Schema(columns=(Column(name="u", type="int"),)))
    many.see(pa.table({"u": np.arange(16_000)}))
    assert many.plain()["u"]["n_distinct"] == pytest.approx(16_000, rel=0.1)


def test_personal_columns_are_told_by_name_or_by_look_and_not_shown() -> None:
    found = columns(rows(100), hidden=("n",))
    assert found.hidden == {"contact", "phone", "n"}
    plain = found.plain()
    for page in (_report_page.html(report(FACTS, found)), _report_words.markdown(report(FACTS, found)), str(plain)):
        assert "example.org" not in page
        assert "3000001" not in page
        assert "3,000,0" not in page


class Strict(HTMLParser):
    """Counts tags and remembers what would be run or fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.risky: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.risky += [f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name in ("src", "href")]


def test_the_page_needs_nothing_else_and_the_data_cannot_break_out_of_it() -> None:
    page = _report_page.html(report(FACTS, columns(rows(100))), report(FACTS, columns(rows(100, 30.0))))
    parser = Strict()
    parser.feed(page)
    assert "script" not in parser.tags
    assert parser.risky == []
    assert "&lt;odd&gt;" in page
    assert "<odd>" not in page
    assert "prefers-color-scheme:dark" in page
    assert parser.tags.count("svg") >= 4
    assert "polyline" in parser.tags
    assert len(page) < 60_000


def test_markdown_cells_cannot_break_their_table() -> None:
    page = _report_words.markdown(report(FACTS, columns(rows(100))))
    table = [line for line in page.splitlines() if line.startswith("| city | string")]
    assert len(table) == 1
    assert "Ulm \\| &lt;i>" in table[0]
    assert "| read | 10 |" in page
    assert "| equal to earlier rows, taken away | 1 |" in page


def test_what_moved_since_the_collect_before_is_said() -> None:
    before, after = report(FACTS, columns(rows(100))), report(FACTS, columns(rows(100, 30.0)))
    page = _report_words.markdown(after, before)
    assert "mean 50 → 80" in page
    assert "Compared with the collect of 2024-01-01" in page
    assert "mean" not in next(line for line in page.splitlines() if line.startswith("| n |"))


def test_a_collect_without_rows_has_a_report(tmp_path: Path) -> None:
    found = report({**FACTS, "reasons": [], "warnings": [], "changed": []}, Columns(SCHEMA))
    assert "Quarantine" not in _report_page.html(found, found)
    assert "| x | float | – | – | – | – | – |" in _report_words.markdown(found)
    assert _report_words.summary(found)[2][0][:3] == ("x", "float", "–")


def test_a_bar_is_as_long_as_the_share_that_stands_beside_it() -> None:
    schema = Schema(columns=(Column(name="id", type="string"), Column(name="shop", type="string")))
    table = pa.table({"id": [f"c-{i:05d}" for i in range(1000)], "shop": ["a"] * 750 + ["b"] * 250}, schema=arrow_schema(schema))
    found = Columns(schema)
    found.see(table)
    page = _report_page.html(report(FACTS, found))
    assert page.count('<rect width="1.0" height=9 rx=2 /></svg><td class=n>&lt; 1%') == 5
    assert re.findall(r'<rect width="([0-9.]+)" height=9 rx=2 /></svg><td class=n>(\d+%)', page) == [("60.0", "75%"), ("20.0", "25%")]
