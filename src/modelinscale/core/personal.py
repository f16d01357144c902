"""What becomes of personal values: dropped, replaced by a keyed pseudonym, or masked. One rule a column, the same where rows are collected and served.

Treated once or twice is the same (``treat(treat(v)) == treat(v)``): a row of the lake may come back as a request, a golden row or a source.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import SpecError, UsageError
from modelinscale.core.schema import NESTED, Column
from modelinscale.core.secrets import MASK, Reference, reveal
from modelinscale.core.settings import Settings

KEY_CHARS = 16
"""A key with fewer characters can be guessed."""
_BYTES = 16
_ID_BYTES = 4
_CHARS = 2 * _ID_BYTES + 1 + 2 * _BYTES
_PSEUDONYM = re.compile(rf"[0-9a-f]{{{2 * _ID_BYTES}}}\.[0-9a-f]{{{2 * _BYTES}}}")
_EMAIL = re.compile(r"[^@\s]+@([^@\s]+\.[^@\s]+)")
_DIGITS = re.compile(r"(?:\d[ .-]?){12,19}")
_MASKED = re.compile(r"\*\*\*(?:@[^@\s]+|\d{4})?|\d{1,3}\.\d{1,3}\.\*\.\*|[0-9a-f:]+::\*")

Keep = Literal["domain", "last4", "network", "nothing", "year", "month", "day"]
Treat = Callable[[Any], Any]
"""One present cell (int, float, bool, text; moments as microseconds since 1970) to the treated one."""


class Rule(Settings):
    """What is done to one personal column."""

    type: Literal["drop", "pseudonym", "mask"]
    """drop: the column does not come in · pseudonym: the same person gets the same word, which says nothing without the key · mask: most of it goes."""
    keep: Keep | None = None
    """What a mask leaves. Of text: ``domain`` (e-mail), ``last4`` (card, account), ``network`` (IP address), ``nothing``; left out: told by each value.
    Of moments: ``year`` (the default), ``month``, ``day``."""
    step: float | None = Field(None, gt=0)
    """Of masked numbers: rounded down to multiples of this (10: ages 30, 40, 50)."""

    @model_validator(mode="after")
    def _only_masks_keep(self) -> Self:
        if self.type != "mask" and (self.keep is not None or self.step is not None):
            raise SpecError(f"`{self.type}` leaves nothing to choose.", fix="`keep` and `step` are for `type: mask`.")
        if self.keep is not None and self.step is not None:
            raise SpecError("`keep` is for text and moments, `step` for numbers.", fix="Keep one of the two.")
        return self

    def objection(self, column: Column) -> str:
        """Why the column cannot be treated so; "" when it can."""
        if self.type == "drop":
            return ""
        if column.type in NESTED or (self.type == "mask" and column.type == "bool"):
            return f"a column of type {column.type} can only be dropped"
        if self.type == "mask" and column.type == "time" and self.keep not in (None, "year", "month", "day"):
            return f"`keep: {self.keep}` is for text, and this is a column of moments: year, month or day"
        if self.type == "mask" and column.type != "time" and self.keep in ("year", "month", "day"):
            return f"`keep: {self.keep}` is for moments, and this is a column of type {column.type}"
        if self.step is not None and column.type not in ("int", "float"):
            return f"`step` is for numbers, and this is a column of type {column.type}"
        if self.step is not None and column.type == "int" and self.step != int(self.step):
            return f"`step: {self.step:g}` is no whole number, and this is a column of them"
        return ""

    def column(self, column: Column) -> Column | None:
        """The column after it; None: it is gone."""
        if self.type == "drop":
            return None
        if self.type == "mask" and (column.type == "time" or self.step is not None):
            return column
        return Column(name=column.name, type="string", nullable=column.nullable)

    def treatment(self, column: Column, keys: "Keys | None") -> Treat:
        """What is done to its present cells. ``keys`` are needed for pseudonyms."""
        if self.type == "pseudonym":
            assert keys is not None, "pseudonyms were checked to have a key"
            return keys.pseudonym
        if self.step is not None:
            return _floored(int(self.step) if column.type == "int" else self.step)
        if column.type == "time":
            return _coarser(self.keep or "year")
        keep = self.keep
        return lambda v: mask(text_of(v), keep)


class Keys:
    """Keys by which pseudonyms are made, the oldest first: a rotation adds one and re-makes old pseudonyms from themselves.

    A pseudonym is ``KEYID.HEX``: 128 bits of keyed BLAKE2b (RFC 7693), under the first key of the value, under each further one of the digest before.
    Whoever lacks any one key can neither make nor check one. ``KEYID`` names the chain of keys and tells nothing of them.
    """

    def __init__(self, values: Sequence[str]) -> None:
        """``values``: the keys themselves."""
        for i, value in enumerate(values):
            if len(value) < KEY_CHARS:
                raise UsageError(
                    f"key {i + 1} of `data.pseudonym_key` has fewer than {KEY_CHARS} characters: it could be guessed.",
                    fix="Make one with `openssl rand -hex 32`.",
                )
        self._keys = [blake2b(value.encode("utf-8", "surrogatepass"), digest_size=32, person=b"mis.pseudonym").digest() for value in values]
        self.ids = tuple(self._id(n) for n in range(1, len(values) + 1))
        """The name of each chain: the first key alone, the first two, ..."""
        self._own = re.compile(rf"{re.escape(self.ids[-1])}\.[0-9a-f]{{{2 * _BYTES}}}")

    @classmethod
    def revealed(cls, references: Sequence[str]) -> "Keys":
        """From references to them. Raises `UsageError` when one is not there."""
        if not references:
            raise SpecError("pseudonyms need a key.", fix="Name one: `data: {pseudonym_key: ${ENV:MIS_KEY}}`, made with `openssl rand -hex 32`.")
        return cls([reveal(reference) for reference in references])

    @property
    def id(self) -> str:
        """The name of the whole chain, which every pseudonym starts with."""
        return self.ids[-1]

    def is_pseudonym(self, text: str) -> bool:
        """Whether text looks like what these keys make."""
        return len(text) == _CHARS and self._own.fullmatch(text) is not None

    def pseudonym(self, value: Any) -> str:
        """The word that stands for a value; one that is such a word already stays."""
        text = text_of(value)
        if self.is_pseudonym(text):
            return text
        return f"{self.id}.{self._digest(text.encode('utf-8', 'surrogatepass'), self._keys)}"

    def rotated(self, pseudonym: str) -> str:
        """A pseudonym of an earlier chain as this chain makes it. Raises `UsageError` for one of other keys."""
        name, _, digest = pseudonym.partition(".")
        if name not in self.ids or len(digest) != 2 * _BYTES:
            raise UsageError(
                f"a pseudonym starts with {name[:16]!r}, which none of these keys makes (they make {', '.join(self.ids)}).",
                fix="`data.pseudonym_key` must list every key since the first, oldest first.",
            )
        rest = self._keys[self.ids.index(name) + 1 :]
        return f"{self.id}.{self._digest(bytes.fromhex(digest), rest) if rest else digest}"

    def _digest(self, value: bytes, keys: Sequence[bytes]) -> str:
        for key in keys:
            value = blake2b(value, digest_size=_BYTES, key=key).digest()
        return value.hex()

    def _id(self, n: int) -> str:
        value = b"mis.key.id"
        for key in self._keys[:n]:
            value = blake2b(value, digest_size=_BYTES, key=key, person=b"mis.key.id").digest()
        return value[:_ID_BYTES].hex()


def made_by(cell: Any) -> str | None:
    """Which keys made a pseudonym (`Keys.id`); None for what is none."""
    return cell[: 2 * _ID_BYTES] if isinstance(cell, str) and _PSEUDONYM.fullmatch(cell) else None


class Treated(Settings):
    """How a package must treat one of its columns before anything else looks at a cell of it."""

    rule: Rule
    """What is done."""
    before: Column
    """The column before it."""
    key: tuple[Reference, ...] = ()
    """Where the keys of pseudonyms are found."""
    key_id: str = ""
    """Which keys these must be."""

    def treatment(self) -> tuple[Treat, Callable[[str], bool]]:
        """What is done to a present cell, and whether text is a treated cell already.

        Raises `UsageError` when the keys are not there, or are others than those the rows were collected with.
        """
        if self.rule.type != "pseudonym":
            return self.rule.treatment(self.before, None), lambda text: _MASKED.fullmatch(text) is not None
        keys = Keys.revealed(self.key)
        if keys.id != self.key_id:
            raise UsageError(
                f"{', '.join(self.key)} makes pseudonyms {keys.id}.…, and the model knows {self.key_id}.…: it is another key.",
                fix="Give the key that the rows were collected with.",
            )
        return self.rule.treatment(self.before, keys), keys.is_pseudonym


def mask(text: str, keep: str | None = None) -> str:
    """Text without what names a person.

    >>> mask("anna@example.org"), mask("4111 1111 1111 1111"), mask("10.1.2.3"), mask("Anna")
    ('***@example.org', '***1111', '10.1.*.*', '***')
    >>> mask("anna@example.org", "nothing"), mask("***1111")
    ('***', '***1111')
    """
    if _MASKED.fullmatch(text) and keep != "nothing":
        return text
    if keep in (None, "domain") and (found := _EMAIL.fullmatch(text.strip())):
        return f"{MASK}@{found[1].lower()}"
    if keep in (None, "network") and (network := _network(text.strip())):
        return network
    digits = re.sub(r"\D", "", text)
    if len(digits) >= 8 and (keep == "last4" or (keep is None and _DIGITS.fullmatch(text.strip()))):
        return f"{MASK}{digits[-4:]}"
    return MASK


def text_of(value: Any) -> str:
    """A cell as the text that is hashed or masked: 7, 7.0 and "7" are one person."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2.0**53:
        return str(int(value))
    return str(value)


def shape(text: str) -> str:
    """What text looks like without what it says: any letter is a, any digit 9.

    >>> shape("Anna 12,5x")
    'aaaa 99,9a'
    """
    return re.sub(r"\d", "9", re.sub(r"[^\W\d_]", "a", text))


def _network(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if address.version == 4:
        first, second, *_ = str(address).split(".")
        return f"{first}.{second}.*.*"
    return ":".join(address.exploded.split(":")[:3]) + "::*"


def _floored(step: float) -> Treat:
    if isinstance(step, int):
        return lambda v: int(v) // step * step

    def treat(value: float) -> float:
        n = math.floor(value / step)
        # A multiple of the step divided by it may come out a hair beside the whole number it is.
        n = n + 1 if (n + 1) * step <= value else n - 1 if n * step > value else n
        return n * step

    return treat


def _coarser(keep: str) -> Treat:
    from datetime import datetime, timedelta

    start, microsecond = datetime(1970, 1, 1), timedelta(microseconds=1)

    def treat(value: int) -> int:
        moment = start + timedelta(microseconds=value)
        first = datetime(moment.year, 1 if keep == "year" else moment.month, moment.day if keep == "day" else 1)
        return (first - start) // microsecond

    return treat


def short(value: Any) -> Any:
    """``mask`` as ``{"type": "mask"}``."""
    return {"type": value} if isinstance(value, str) else value
