"""What is found in columns of text, and what a data engineer would have said."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelinscale.core.errors import DataError, NotSupportedYet, SpecError
from modelinscale.core.schema import Column
from modelinscale.data.clean import clean
from modelinscale.data.infer import infer, profile
from modelinscale.data.sources import Source
from modelinscale.testing.examples import examples


def found(cells: Sequence[str | None], name: str = "x") -> Column:
    return infer(pa.table({name: pa.array(cells, pa.string())}))[name]


def values(cells: Sequence[str | None], name: str = "x") -> list[object]:
    """The cells read by the habits found in them; every one of them must be readable."""
    schema = infer(pa.table({name: pa.array(cells, pa.string())}))
    cleaned = clean(pa.record_batch([pa.array(cells, pa.string())], names=[name]), schema)
    assert not len(cleaned.faults), cleaned.faults.table().to_pylist()
    got: list[object] = cleaned.batch.column(0).to_pylist()
    return got


@pytest.mark.parametrize(
    ("cells", "type", "read"),
    [
        (["1", "2", "-3"], "int", [1, 2, -3]),
        (["0", "1", "1", "0"], "int", [0, 1, 1, 0]),
        (["1", "2.5", "-3e2"], "float", [1.0, 2.5, -300.0]),
        ([" 1", "2 ", "\t3"], "int", [1, 2, 3]),
        (["+1", "２", "−3"], "int", [1, 2, -3]),
        (["1", "NA", "?", "-", "", None, "null", "n/a"], "int", [1, None, None, None, None, None, None, None]),
        (["1.5", "unknown", "2.5", "tbd"], "float", [1.5, None, 2.5, None]),
        (["1,234", "12", "1,234,567"], "int", [1234, 12, 1234567]),
        (["1,234.5", "12.25"], "float", [1234.5, 12.25]),
        (["1,5", "12,75", "0,125"], "float", [1.5, 12.75, 0.125]),
        (["1.234,56", "12,5"], "float", [1234.56, 12.5]),
        (["1.234.567", "12.345", "7"], "int", [1234567, 12345, 7]),
        (["1 234,5", "1\u00a0000", "\u202f3"], "float", [1234.5, 1000.0, 3.0]),
        (["1'234", "5"], "int", [1234, 5]),
        (["12,34,567", "1,000"], "int", [1234567, 1000]),
        (["$1,234", "$5", "-$3"], "int", [1234, 5, -3]),
        (["€ 1,50", "€ 2,75"], "float", [1.5, 2.75]),
        (["1.50 EUR", "2 eur", "3"], "float", [1.5, 2.0, 3.0]),
        (["45%", "7 %", "0.5%"], "float", [45.0, 7.0, 0.5]),
        (["12.0 oz", "12.0 oz.", "16 ounce", "8 OZ.", "9 oz. tall can"], "float", [12.0, 12.0, 16.0, 8.0, 9.0]),
        (["yes", "no", "Yes", "NO"], "bool", [True, False, True, False]),
        (["True", "false", ""], "bool", [True, False, None]),
        (["Y", "N", "Y"], "bool", [True, False, True]),
        (["007", "012", "9"], "string", ["007", "012", "9"]),
        (["12345678901234567890", "22345678901234567890"], "string", ["12345678901234567890", "22345678901234567890"]),
        (["a", "b", "?"], "string", ["a", "b", None]),
        (["none", "some", "many"], "string", ["none", "some", "many"]),
        (["12A", "12B", "7C"], "string", ["12A", "12B", "7C"]),
        (["12 kg", "500 g", "1 kg"], "string", ["12 kg", "500 g", "1 kg"]),
        (["1.2M", "3K", "5M"], "string", ["1.2M", "3K", "5M"]),
        (["10-20", "20-30"], "string", ["10-20", "20-30"]),
        (["192.168.0.1", "10.0.0.1"], "string", ["192.168.0.1", "10.0.0.1"]),
        (["7:10 a.m.", "7:45 p.m."], "string", ["7:10 a.m.", "7:45 p.m."]),
        ([None, "", None], "string", [None, None, None]),
        (["NA", "N/A"], "string", [None, None]),
        ([], "string", []),
    ],
    ids=str,
)
def test_a_column_of_text_is_what_its_cells_say(cells: list[str | None], type: str, read: list[object]) -> None:
    assert found(cells).type == type
    assert values(cells) == read


@pytest.mark.parametrize(
    ("cells", "format", "first"),
    [
        (["2024-02-29", "2023-12-31"], "iso", datetime(2024, 2, 29)),
        (["2024-02-29 10:11:12.5", "2023-12-31 00:00"], "iso", datetime(2024, 2, 29, 10, 11, 12, 500000)),
        (["2024-02-29T10:00:00+02:00", "2024-03-01T00:00:00Z"], "iso", datetime(2024, 2, 29, 8)),
        (["31/12/2023", "01/02/2024"], "%d/%m/%Y", datetime(2023, 12, 31)),
        (["12/31/2023", "01/02/2024"], "%m/%d/%Y", datetime(2023, 12, 31)),
        (["31.12.2023", "1.2.2024"], "%d.%m.%Y", datetime(2023, 12, 31)),
        (["2023/12/31", "2024/01/02"], "%Y/%m/%d", datetime(2023, 12, 31)),
        (["31/12/99", "01/02/03"], "%d/%m/%y", datetime(1999, 12, 31)),
        (["12/31/2023 6:55 PM", "01/02/2024 11:05 AM"], "%m/%d/%Y %I:%M %p", datetime(2023, 12, 31, 18, 55)),
        (["31/12/2023 23:59:58", "01/02/2024 00:00:00"], "%d/%m/%Y %H:%M:%S", datetime(2023, 12, 31, 23, 59, 58)),
        (["Jun 12 1998", "Aug 07 1998"], "%b %d %Y", datetime(1998, 6, 12)),
        (["June 12, 1998", "August 7, 1998"], "%B %d, %Y", datetime(1998, 6, 12)),
        (["12-Jun-1998", "07-Aug-1998"], "%d-%b-%Y", datetime(1998, 6, 12)),
        (["12/Jun/2020:10:00:00 +0200", "13/Jun/2020:10:00:00 +0200"], "%d/%b/%Y:%H:%M:%S %z", datetime(2020, 6, 12, 8)),
    ],
    ids=str,
)
def test_moments_are_found_in_the_way_they_are_written(cells: list[str], format: str, first: datetime) -> None:
    column = found([*cells, "", "NA"])
    assert (column.type, column.format) == ("time", format)
    assert values(cells)[0] == first


def test_day_or_month_first_is_settled_by_the_whole_sample() -> None:
    start = datetime(2024, 1, 1)
    days = [start + timedelta(days=i) for i in range(60)]
    assert found([d.strftime("%d/%m/%Y") for d in days]).format == "%d/%m/%Y"
    assert found([d.strftime("%m/%d/%Y") for d in days]).format == "%m/%d/%Y"


def test_where_both_fit_the_other_columns_settle_it_then_the_mark() -> None:
    both = pa.array(["01/02/2024", "03/04/2024"])
    assert infer(pa.table({"a": ["25/01/2024", "26/02/2024"], "b": both}))["b"].format == "%d/%m/%Y"
    assert infer(pa.table({"b": both}))["b"].format == "%m/%d/%Y"
    assert found(["01.02.2024", "03.04.2024"]).format == "%d.%m.%Y"


def test_digits_are_dates_only_where_the_name_says_so() -> None:
    cells = ["19560409", "20011231"]
    assert found(cells, "amount").type == "int"
    assert found(cells, "date_of_birth").format == "%Y%m%d"
    assert found(["1700000000", "1700000001"], "created_at").type == "int", "counts since 1970 are numbers until somebody says otherwise"


def test_codes_stay_text() -> None:
    assert found(["90210", "10001"], "zip").type == "string"
    assert found(["90210", "10001"], "postcode").type == "string"
    assert found(["90210", "10001"], "price").type == "int"
    assert found([f"{i:05d}" for i in range(500)]).type == "string"


def test_among_country_codes_NA_is_a_country() -> None:  # noqa: N802
    assert found(["DE", "FR", "NA", "IT", "PL"]).nulls == ()
    assert found(["good", "bad", "NA", "fair"]).nulls == ("NA",)


@pytest.mark.parametrize(("n_bad", "type"), [(0, "int"), (2, "int"), (3, "string")])
def test_up_to_two_percent_of_bad_cells_are_faults_more_make_the_column_text(n_bad: int, type: str) -> None:
    cells = [str(i) for i in range(100 - n_bad)] + [f"oops{i}" for i in range(n_bad)]
    random.Random(1).shuffle(cells)
    schema = infer(pa.table({"x": cells}))
    assert schema["x"].type == type
    assert len(clean(pa.record_batch([pa.array(cells)], names=["x"]), schema).faults) == (n_bad if type == "int" else 0)


def test_types_can_be_held_by_force_and_their_habits_are_still_found() -> None:
    table = pa.table({"zip": ["10001", "90210"], "price": ["$1,000", "n.a."], "day": ["31/12/2023", "soon"], "flag": ["yes", "maybe"], "n": [1, 2]})
    schema = infer(table, force={"zip": "string", "price": "float", "day": "time", "flag": "bool", "n": "string"})
    assert [c.type for c in schema.columns] == ["string", "float", "time", "bool", "string"]
    assert (schema["price"].thousands, schema["price"].affixes) == (",", ("$",))
    assert schema["day"].format == "%d/%m/%Y"
    assert schema["flag"].true_words == ("yes",)


def test_a_forced_column_that_is_not_there_or_cannot_be_held_is_refused() -> None:
    table = pa.table({"a": ["x"], "b": [1]})
    with pytest.raises(SpecError, match="no column 'z'"):
        infer(table, force={"z": "int"})
    with pytest.raises(DataError, match="'a' holds text cells and cannot be held as vector"):
        infer(table, force={"a": "vector"})


def test_where_a_format_declares_its_types_text_stays_text_unless_it_is_moments() -> None:
    table = pa.table({"id": ["1", "2"], "word": ["?", "x"], "day": ["2024-01-01", "2024-01-02"], "n": pa.array([1, 2], pa.uint8())})
    schema = infer(table, typed=True)
    assert [c.type for c in schema.columns] == ["string", "string", "time", "int"]
    assert schema["word"].nulls == ()


def test_lists_of_one_length_are_vectors_and_others_sequences() -> None:
    steps = [[[1, 2, 3]], [], [[1, 2, 3], [4, 5, 6]]]
    found = infer(pa.table({"v": [[1.0, 2.0], None, [3.0, 4.0]], "w": [[1], [1, 2], None], "steps": steps}))
    assert [(c.type, c.width) for c in found.columns] == [("vector", 2), ("sequence", 1), ("sequence", 3)]


def test_cells_that_no_type_holds_are_refused_together() -> None:
    table = pa.table({"w": [[[1], [1, 2]], None, [[3]]], "s": [{"a": 1}, None, None], "n": [1, 2, 3]})
    with pytest.raises(NotSupportedYet, match=r"(?s)'w'.*'s'.*without: \[w, s\]"):
        infer(table)


@given(st.lists(st.one_of(st.none(), st.text(max_size=12), st.sampled_from(["1", "2.5", "NA", "2024-01-01", "yes", "$5", "1,000", "31.02.2020"])), max_size=40))
@settings(max_examples=examples(60), deadline=None)
def test_any_text_gets_a_type_and_most_of_it_can_be_read(cells: list[str | None]) -> None:
    cells = [c if c is None else c.encode("utf-8", "ignore").decode() for c in cells]
    schema = infer(pa.table({"x": pa.array(cells, pa.string())}))
    cleaned = clean(pa.record_batch([pa.array(cells, pa.string())], names=["x"]), schema)
    readable = [f for f in cleaned.faults.reason.to_pylist() if f != "text with a NUL character"]
    assert len(readable) <= 0.02 * len(cells)


def test_a_profile_tells_a_column_at_a_glance() -> None:
    table = pa.table(
        {
            "n": pa.array([1, 2, 2, None], pa.int64()),
            "x": pa.array([0.5, None, 2.5, 1.5]),
            "w": pa.array(["a b", "a b", "c", None]),
            "t": pa.array([datetime(2024, 1, 1), datetime(2024, 1, 2), datetime(2024, 1, 2), datetime(2025, 1, 1)], pa.timestamp("us")),
            "b": pa.array([True, False, True, True]),
            "v": pa.array([[1.0, 2.0], [1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2)),
            "k": pa.array([7, 7, 7, 7]),
        }
    )
    p = profile(table)
    assert (p["n"].n_rows, p["n"].n_missing, p["n"].n_distinct, p["n"].low, p["n"].high) == (4, 1, 2, "1", "2")
    assert p["n"].top == (("2", 2), ("1", 1))
    assert (p["x"].low, p["x"].high, p["x"].mean) == ("0.5", "2.5", 1.5)
    assert (p["w"].n_distinct, p["w"].top[0]) == (2, ("a b", 2))
    assert p["w"].mean_words == pytest.approx(5 / 3)
    assert (p["t"].low, p["t"].ascending) == ("2024-01-01 00:00:00", True)
    assert (p["b"].top, p["b"].mean) == ((("true", 3), ("false", 1)), 0.75)
    assert (p["v"].n_distinct, p["v"].n_missing) == (2, 1)
    assert p["k"].constant
    assert not p["n"].constant
    assert not p["k"].unique


def test_a_profile_of_no_rows_and_of_missing_cells_only() -> None:
    p = profile(pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())}))
    assert (p["a"].n_rows, p["a"].low, p["a"].missing_share) == (0, None, 0.0)
    assert profile(pa.table({"a": pa.nulls(3, pa.float64())}))["a"].n_missing == 3


@pytest.mark.real
def test_the_dirty_beers_are_understood(real_data: Path) -> None:
    source = Source.parse({"type": "csv", "path": str(real_data / "dirty-beers" / "dirty.csv")})
    schema = source.columns()
    assert {c.name: c.type for c in schema.columns} == {
        "index": "int", "id": "int", "beer-name": "string", "style": "string", "ounces": "float", "abv": "float", "ibu": "int",
        "brewery_id": "int", "brewery-name": "string", "city": "string", "state": "string",
    }  # fmt: skip
    truth = Source.parse({"type": "csv", "path": str(real_data / "dirty-beers" / "clean.csv")})
    ours, theirs = (next(clean(c.batch, s.columns()).batch for c in s.read(None, s.columns())) for s in (source, truth))
    for name in ("ounces", "ibu"):
        same = [a == b for a, b in zip(ours.column(name).to_pylist(), theirs.column(name).to_pylist(), strict=True)]
        assert sum(same) / len(same) > 0.99, name


@pytest.mark.real
def test_the_dirty_movies_are_understood(real_data: Path) -> None:
    schema = Source.parse({"type": "jsonl", "path": str(real_data / "dirty-movies" / "movies.json")}).columns()
    types = {c.name: c.type for c in schema.columns}
    assert types["Title"] == "string", "titles such as 300 are numbers in some rows"
    assert (types["Release Date"], schema["Release Date"].format) == ("time", "%b %d %Y")
    assert (types["IMDB Rating"], types["Worldwide Gross"]) == ("float", "int")


@pytest.mark.real
def test_the_dirty_books_flights_and_people_are_understood(real_data: Path) -> None:
    books = Source.parse({"type": "csv", "path": str(real_data / "dirty-british-library-books" / "books.csv")}).columns()
    assert {c.type for c in books.columns} == {"string"}, "identifiers have leading zeros, years stand among 1839, 38-54 and [1883.]"
    flights = Source.parse({"type": "csv", "path": str(real_data / "dirty-flights" / "dirty.csv")}).columns()
    assert [c.type for c in flights.columns] == ["int"] + ["string"] * 6
    people = Source.parse({"type": "csv", "path": str(real_data / "febrl3-pii-duplicates" / "people.csv")}).columns()
    assert (people["postcode"].type, people["date_of_birth"].format, people["given_name"].type) == ("string", "%Y%m%d", "string")
