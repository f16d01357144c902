"""How chunks are gathered into commits: by rows, by bytes, by time."""

from collections.abc import Iterator

import pyarrow as pa

from modelinscale.data._units import Piece, units_of
from modelinscale.data.clean import Cleaned, Faults

NO_TEXT = pa.array([], pa.string())
NO_FAULTS = Faults(pa.array([], pa.int64()), NO_TEXT, NO_TEXT, NO_TEXT)


def pieces(*sizes: int) -> Iterator[Piece]:
    for i, n in enumerate(sizes):
        yield Piece(Cleaned(pa.record_batch({"x": pa.array(range(n), pa.int64())}), NO_FAULTS), {"n": i}, f"chunk {i}")


def gathered(*sizes: int, every_s: float) -> list[int]:
    """Rows of each commit when a chunk comes every so many seconds."""
    now = iter(i * every_s for i in range(1000))
    return [unit.n_rows for unit in units_of(pieces(*sizes), 100, 1 << 30, max_s=60.0, pin=False, clock=lambda: next(now))]


def test_a_fast_source_makes_commits_of_the_size_asked_for() -> None:
    assert gathered(*[40] * 10, every_s=0.0) == [120, 120, 120, 40]


def test_rows_of_a_slow_source_wait_a_minute_at_most() -> None:
    assert gathered(*[5] * 10, every_s=31.0) == [10, 10, 10, 10, 10]


def test_what_has_no_rows_makes_no_commit_however_long_it_takes() -> None:
    assert gathered(0, 0, 0, 5, every_s=100.0) == [5]


def test_an_empty_piece_behind_a_full_commit_still_moves_the_cursor() -> None:
    units = list(units_of(pieces(100, 0, 0), 100, 1 << 30, pin=False))
    assert [(unit.n_rows, unit.pieces[-1].cursor) for unit in units] == [(100, {"n": 0}), (0, {"n": 2})]
    stays = [piece._replace(cursor={"n": 0}) for piece in pieces(100, 0)]
    assert [unit.n_rows for unit in units_of(iter(stays), 100, 1 << 30, pin=False)] == [100], "nothing moved"
