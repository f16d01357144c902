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
    last_line = block.rfind(bytes((line_end,)))
    last_quote = block.rfind(quote.encode()) if quote else -1
    if last_quote < 0 or last_line < 0:
        return last_line + 1
    window = len(block) - min(last_quote, last_line) + WINDOW
    while True:
        start = max(0, len(block) - window)
        found = _quoted(block, start, quote or "", separator)
        if found is not None:
            known, runs, inside = found
            # Lines are looked at from the end, a window at a time: the last one outside quotes is nearly always the last of all.
            upto = len(block)
            while upto > known:
                begin = max(known, upto - WINDOW)
                ends = _outside(np.flatnonzero(np.frombuffer(block, np.uint8)[begin:upto] == line_end) + begin, runs, inside)
                if len(ends):
                    return int(ends[-1]) + 1
                upto = begin
        if start == 0:
            return 0
        window = len(block) if window > WINDOW * 16 else window * 8


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
    found = _quoted(block, 0, quote, separator)
    assert found is not None
    _, runs, inside = found
    return _outside(np.flatnonzero(np.frombuffer(block, np.uint8) == line_end), runs, inside) + 1


def _quoted(block: bytes, start: int, quote: str, separator: str) -> "tuple[int, NDArray[np.int64], NDArray[np.bool_]] | None":
    """From which place after ``start`` on the state is known, the odd runs of quotes, and whether the text is quoted after each of them.

    None if there is no such place.
    """
    text = np.frombuffer(block, np.uint8)
    at = np.flatnonzero(text[start:] == ord(quote)) + start
    first = np.flatnonzero(np.diff(at, prepend=-2) != 1)
    odd = np.diff(first, append=len(at)) % 2 == 1
    runs = at[first]
    if start and len(runs) and runs[0] == start:
        odd[0] = False  # the window may begin within this run
    runs = runs[odd]
    before = text[np.maximum(runs - 1, 0)]
    opens = (runs == 0) | (before == ord(separator)) | (before == 10) | (before == 13)
    known = 0
    if start:
        closing = np.flatnonzero(~opens)
        if not len(closing):
            return None
        known = int(runs[closing[0]])
    # Quoted: the number of opening runs since the last closing one is odd.
    n_opens = np.cumsum(opens)
    since = np.maximum.accumulate(np.where(opens, 0, n_opens))
    return known, runs, (n_opens - since) % 2 == 1


def _outside(lines: "NDArray[np.int64]", runs: "NDArray[np.int64]", inside: "NDArray[np.bool_]") -> "NDArray[np.int64]":
    """The line ends that are not within quotes."""
    if not len(runs):
        return lines
    run = np.searchsorted(runs, lines) - 1
    return lines[~((run >= 0) & inside[np.maximum(run, 0)])]
