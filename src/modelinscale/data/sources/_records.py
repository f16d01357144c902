"""Where records of quoted text end: a line end inside a quoted cell ends none."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 1 << 16
"""Bytes looked at first, from the end of a block."""


def last_end(block: bytes, quote: str | None, separator: str, line_end: int = 10) -> int:
    """The position after the last record that ends within a block, which starts at a record; 0 if none does.

    As Arrow's reader sees it: a quote opens a cell only where a cell starts; inside, two quotes are one; the first single one closes it; any other
    quote is a letter. So a run of quotes of even length changes nothing; an odd one at the start of a cell opens or closes; an odd one elsewhere
    closes or is a letter: after it the text is surely outside quotes. From the last such run on, the state is known without reading the rest.
    """
    newline = bytes((line_end,))
    last_quote = block.rfind(quote.encode()) if quote else -1
    if last_quote < 0:
        return block.rfind(newline) + 1
    window = len(block) - min(last_quote, block.rfind(newline)) + WINDOW
    while True:
        start = max(0, len(block) - window)
        ends = _ends(block, start, quote or "", separator, line_end)
        if ends is not None and len(ends):
            return int(ends[-1]) + 1
        if start == 0:
            return 0
        window *= 8


def first_end(block: bytes, start: int, quote: str | None, separator: str, line_end: int = 10) -> int:
    """The position after the first record that is not blank and ends within a block, the records starting at ``start``; 0 if none does."""
    window = WINDOW
    while True:
        part = block[start : start + window]
        begin = start
        for end in all_ends(part, quote, separator, line_end).tolist():
            if block[begin : start + end].strip(b"\r\n"):
                return start + int(end)
            begin = start + end
        if start + window >= len(block):
            return 0
        window *= 8


def all_ends(block: bytes, quote: str | None, separator: str, line_end: int = 10) -> "NDArray[np.int64]":
    """The positions after every record (blank lines too) that ends within a block."""
    if quote is None or quote.encode() not in block:
        return np.flatnonzero(np.frombuffer(block, np.uint8) == line_end) + 1
    ends = _ends(block, 0, quote, separator, line_end)
    assert ends is not None
    return ends + 1


def _ends(block: bytes, start: int, quote: str, separator: str, line_end: int) -> "NDArray[np.int64] | None":
    """Line ends outside quotes from the first place after ``start`` where the state is known; None if there is no such place."""
    text = np.frombuffer(block, np.uint8)
    at = np.flatnonzero(text[start:] == ord(quote)) + start
    first = np.flatnonzero(np.diff(at, prepend=-2) != 1)
    length = np.diff(first, append=len(at))
    runs = at[first]
    odd = length % 2 == 1
    if start and len(runs) and runs[0] == start:
        odd[0] = False  # the window may begin within this run
    runs = runs[odd]
    before = text[np.maximum(runs - 1, 0)]
    opens = (runs == 0) | (before == ord(separator)) | (before == 10) | (before == 13)
    base = 0
    if start:
        closing = np.flatnonzero(~opens)
        if not len(closing):
            return None
        base = int(runs[closing[0]])
    # The state after each run: the number of opening runs since the last closing one, odd or even.
    n_opens = np.cumsum(opens)
    since = np.maximum.accumulate(np.where(opens, 0, n_opens))
    inside = (n_opens - since) % 2 == 1
    lines = np.flatnonzero(text[base:] == line_end) + base
    run = np.searchsorted(runs, lines) - 1
    quoted = np.where(run >= 0, inside[np.maximum(run, 0)], False) if len(runs) else np.zeros(len(lines), bool)
    found: NDArray[np.int64] = lines[~quoted]
    return found
