"""A first model.yaml can always be read back, whatever the data hold."""

from pathlib import Path

import pytest
import yaml

from modelinscale.api import Project, init
from modelinscale.spec import draft, load

ODD = ["\x1b[31m", "\x7f", "\x85", "\u2028", "\ufffe", "\U000e0001", "\U0001fffe", "\ufeff", "\x9f"]
"""Characters that no terminal shows and YAML does not allow raw, or not everywhere."""


@pytest.mark.parametrize("text", [*ODD, "\ud800", "\x00", 'a"b', "a\\b", "a,b", "a\nb", "\U0001f600"])
def test_a_quoted_text_is_read_as_itself(text: str) -> None:
    assert yaml.safe_load(draft.quoted(f"x{text}y")) == f"x{text}y"
    assert yaml.safe_load(draft._list((f"x{text}", "b,c"))) == [f"x{text}", "b,c"]
    assert yaml.safe_load(draft._value([f"x{text}y"])) == [f"x{text}y"]


def test_odd_characters_in_header_and_cells_make_a_file_that_can_be_read(tmp_path: Path) -> None:
    header = ["kind" + "".join(ODD), "constant\x1b\U000e0001", "x", "y"]
    words = [f"some words of a cell {odd} and more of them that it be no binary file" for odd in ODD]
    rows = [[words[i % len(words)], "same\x7f", str(i * 7 % 50), "ab"[i * 3 % 2]] for i in range(300)]
    lines = [",".join(row) for row in (header, *rows)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    drafted = init([str(tmp_path / "rows.csv")], target="y", out=tmp_path / "model.yaml")
    text = drafted.file.read_text(encoding="utf-8")
    assert all(c.isprintable() or c == "\n" for c in text)
    assert next(iter(load(drafted.file).features)).startswith("kind\x1b[31m\x7f")
    Project(drafted.file).check()


def test_a_lone_surrogate_in_rows_is_no_obstacle(tmp_path: Path) -> None:
    rows = [f'{{"kind": "{"ab"[i % 2]}\\udc00", "x": {i * 7 % 50}, "y": "{"no" if i % 3 else "yes"}"}}' for i in range(300)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    drafted = init([str(tmp_path / "rows.jsonl")], target="y", out=tmp_path / "model.yaml")
    Project(drafted.file).check()


def test_days_are_told_without_midnight(tmp_path: Path) -> None:
    rows = [f"2024-{1 + i % 12:02d}-{1 + i % 28:02d},{i * 7 % 50},{'ab'[i % 2]}" for i in range(300)]
    (tmp_path / "rows.csv").write_text("day,x,y\n" + "\n".join(rows) + "\n", encoding="utf-8")
    text = init([str(tmp_path / "rows.csv")], target="y", out=tmp_path / "model.yaml").file.read_text(encoding="utf-8")
    assert "00:00:00" not in text
    assert "2024-01-01 to 2024-12-" in text
