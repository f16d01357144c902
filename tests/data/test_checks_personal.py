"""What is told to be personal by its look, and what is not."""

import random
from pathlib import Path

import polars as pl
import pytest

from modelinscale.data._personal import column_hint, detect, masked

PERSONAL = {
    "email": ("a@b.co", "mail me: Jane.Doe+x@mail.example.org!", "o'hara@EXAMPLE.COM"),
    "iban": ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "pay to FR1420041010050500013M02606 please"),
    "card": ("4111 1111 1111 1111", "paid with 5500-0000-0000-0004.", "378282246310005"),
    "national": (
        *("123-45-6789", "44051401359", "943 476 5919", "12345678Z", "X1234567L", "RSSMRA85T10A562S", "529.982.247-25"),
        *("11010519491231002X", "811228-9874", "AB123456C", "1 85 05 78 006 084 91"),
    ),
    "phone": ("+49 30 1234567", "(555) 123-4567", "call 555-123-4567 now", "0049 30 1234567", "+14155552671"),
    "ip": ("192.168.0.1", "from 10.0.0.255:", "2001:db8::1"),
}
INNOCENT = (
    *("", "hello", "4111 1111 1111 1112", "DE89370400440532013001", "12:30:45", "0.4111111111111111", "2024-05-01 12:30:00", "1.2.3", "v1.2.3.4"),
    *("00:11:22:33:44:55", "555-1234", "order 20240501-1234", "user@host", "12345678A", "44051401358", "1,234,567.89", "::", "a:b:c"),
)


@pytest.mark.parametrize(("kind", "cell"), [(kind, cell) for kind, cells in PERSONAL.items() for cell in cells])
def test_personal_data_is_told_by_its_kind(kind: str, cell: str) -> None:
    assert detect(pl.Series([cell, None])).to_list() == [kind, None]


def test_other_text_is_not_personal() -> None:
    found = detect(pl.Series("c", INNOCENT))
    assert [c for c, k in zip(INNOCENT, found, strict=True) if k] == []
    assert found.name == "c"


def test_numbers_by_chance_are_rarely_taken_for_personal() -> None:
    chance = random.Random(7)
    floats = pl.Series([repr(chance.gauss(0, 100)) for _ in range(20_000)])
    cards = pl.Series([chance.randrange(10**15, 10**16) for _ in range(20_000)])
    counts = pl.Series([chance.randrange(10**8, 10**9) for _ in range(20_000)])
    assert detect(floats).null_count() == 20_000
    assert detect(counts).null_count() == 20_000
    assert detect(cards).is_not_null().mean() < 0.05  # type: ignore[operator]


def test_a_columns_name_lets_pass_what_digits_alone_do_not_prove() -> None:
    assert detect(pl.Series([111222333])).to_list() == [None]
    assert detect(pl.Series([111222333]), "national").to_list() == ["national"]
    assert detect(pl.Series(["030 1234567"]), "phone").to_list() == ["phone"]
    assert detect(pl.Series([1.5, 2.5]), "phone").to_list() == [None, None]
    assert detect(pl.Series([4111111111111111])).to_list() == ["card"]


def test_cells_are_masked_by_their_kind() -> None:
    assert masked(pl.Series(["a@b.co", "fine", None])).to_list() == ["(email)", "fine", None]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        *[("Customer E-Mail", "email"), ("ipAddress", "ip"), ("card_number", "card"), ("FirstName", "name"), ("soc_sec_id", "national"), ("dob", "birth")],
        *[("address_1", "address"), ("tel", "phone"), ("iban", "iban"), ("Geburtsdatum", "birth"), ("telefonnummer", None)],
        *[(name, None) for name in ("amount", "shipping", "description", "card_id", "name", "panel", "hotel", "recipient", "clip", "birthweight")],
    ],
)
def test_a_columns_name_promises(name: str, hint: str | None) -> None:
    assert column_hint(name) == hint


@pytest.mark.real
def test_a_file_of_persons_is_found_out_by_its_columns() -> None:
    folder = Path(__file__).parents[3] / "shared" / "data" / "febrl3-pii-duplicates"
    files = sorted(folder.glob("**/*.csv")) + sorted(folder.glob("**/*.parquet"))
    if not files:
        pytest.skip("the file of made-up persons is not there")
    frame = pl.read_csv(files[0], infer_schema=False) if files[0].suffix == ".csv" else pl.read_parquet(files[0])
    hints = {column_hint(name.strip()) for name in frame.columns}
    assert {"name", "birth", "national", "address"} <= hints
