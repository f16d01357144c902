"""Texts cut by a tokenizer that came with an encoder: the host's part of reading a text, the same in training, in scoring and in the server.

WordPiece, merges of bytes and Unigram come with rules of their own for case, accents and blanks, written down in a ``tokenizer.json``. One library
(`tokenizers`) reads that file wherever texts are cut, and the file travels in the package, so that the numbers are the same by construction.
N texts, T tokens of each at most.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelinscale.core.errors import ModelError, needs

FIRST = 2
"""A token is its number in the tokenizer and this: 0 is behind a text's end, 1 is never used."""
_KEPT = 8


class Tokenizer:
    """A tokenizer as its file says, its own padding and cutting off left out. Threads may share it."""

    def __init__(self, content: str, longest: int | None = None) -> None:
        """``content``: of a ``tokenizer.json``. ``longest``: tokens of a text at most, signs for beginning and end included; None: all of them.

        Raises `ModelError` for what is no such file, or where the signs alone are as many as ``longest``.
        """
        self.content, self.longest = content, longest
        self._cutter = _read(content)
        self._cutter.no_padding()
        self._cutter.no_truncation()
        self._cutter.encode_special_tokens = True  # what somebody writes is text, also where it looks like a sign for an end
        n_signs = int(self._cutter.num_special_tokens_to_add(is_pair=False))
        if longest is not None:
            if longest <= n_signs:
                raise ModelError(f"`longest: {longest}` leaves no room for a text: this tokenizer adds {n_signs} signs to each.", fix="Raise `longest`.")
            self._cutter.enable_truncation(longest)

    @property
    def sha256(self) -> str:
        """Which tokenizer it is."""
        return sha256_of(self.content)

    @cached_property
    def n_ids(self) -> int:
        """Numbers there are: the largest and one."""
        return FIRST + 1 + max(self._cutter.get_vocab(with_added_tokens=True).values(), default=-1)

    def sizes(self, texts: Sequence[str | None]) -> NDArray[np.int64]:
        """(N,) tokens of each text."""
        return np.array([len(one) for one in self._cut(texts)], np.int64)

    def ids(self, texts: Sequence[str | None]) -> NDArray[np.int32]:
        """(N, T): each text's tokens, 0 behind its end. A missing text is an empty one, which may have signs for beginning and end all the same."""
        assert self.longest is not None, "rows have one length"
        whole = np.zeros((len(texts), self.longest), np.int32)
        for row, found in enumerate(self._cut(texts)):
            whole[row, : len(found)] = np.asarray(found, np.int32) + FIRST
        return whole

    def _cut(self, texts: Sequence[str | None]) -> list[list[int]]:
        # One after the other: several at once would go through threads of the library's own, which a forked process must not have.
        return [self._cutter.encode(text or "").ids for text in texts]


@lru_cache(_KEPT)
def tokenizer(content: str, longest: int | None = None) -> Tokenizer:
    """A tokenizer, made once: that takes a tenth of a second for a large vocabulary."""
    return Tokenizer(content, longest)


@lru_cache(_KEPT)
def sha256_of(content: str) -> str:
    """In 16 digits."""
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def tokens_of(column: str) -> str:
    """What the graph calls its input of a column's tokens."""
    return f"tokens of {column}"


def _read(content: str) -> Any:
    tokenizers = needs("tokenizers", extra="subwords")
    try:
        return tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain exceptions for whatever it cannot read
        raise ModelError(
            f"This is no tokenizer.json that `tokenizers` {tokenizers.__version__} reads ({str(error)[:200]}).",
            fix="Write it with `transformers`: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER).",
        ) from error
