"""Secrets by reference: settings hold ``${ENV:NAME}`` or ``${FILE:path}``, the value is known only at the moment of use and never told.

A field that holds nothing but a secret is a `Reference`; an address that may hold one (``postgresql://mis:${ENV:PGPASSWORD}@db/shop``) is an `Address`.
Both keep the text as it was written: what is compared, hashed, shown or stored never holds a value. `reveal` gives the value to the library that needs
it; from then on `veil` takes that value out of any text, and every `MisError` and log line passes through it.
"""

import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, quote_plus, urlsplit

from pydantic import AfterValidator

_REFERENCE = re.compile(r"\$\{(?P<kind>[A-Za-z]*):(?P<name>[^{}]*)\}")
_IN_ADDRESS = re.compile(r"(://[^\s'\"<>:@/]*:)(?!\$\{(?:ENV|FILE):[^{}]*\}@)[^\s'\"<>]*@")
_TELLING = re.compile(
    r"passw|pwd|passphrase|secret|token|credential|auth|sasl|(?:api|access|private|pseudonym|signing)_?key|^key_?file|url|uri|dsn|address|header|cookie",
    re.IGNORECASE,
)
_SHORTEST = 3
"""Values with fewer letters are not looked for in texts: they would be found everywhere, and tell nothing."""
_SHORTEST_ENCODED = 6
_LOWER = re.compile(r"%[0-9A-F]{2}")
MASK = "***"

_revealed: dict[str, None] = {}
"""Values given out by this process, in every form in which they may come back. The one thing a process remembers: what it must not say."""


def reveal(text: str, *, in_url: bool = False) -> str:
    """The text with every reference replaced by what it stands for, percent-encoded ``in_url``.

    Raises `UsageError` when a variable or file is not there or empty. A file's last line end is not part of its value.
    """
    return _REFERENCE.sub(lambda found: quote(value, safe="") if (value := _value(found["kind"], found["name"])) and in_url else value, text)


def references(text: str) -> tuple[str, ...]:
    """The references in a text, as written."""
    return tuple(found[0] for found in _REFERENCE.finditer(text))


def veil(text: str) -> str:
    """The text without any value that was revealed, and without a password that an address holds: ``***`` in its place.

    >>> veil("cannot reach db://mis:hunter2@host/shop, nor db://mis:${ENV:PW}@host")
    'cannot reach db://mis:***@host/shop, nor db://mis:${ENV:PW}@host'
    """
    # Longest first: a value may be the beginning of another.
    for value in sorted(_revealed, key=len, reverse=True):
        if value in text:
            text = text.replace(value, MASK)
    return _IN_ADDRESS.sub(rf"\g<1>{MASK}@", text) if "://" in text else text


def is_telling(name: object) -> bool:
    """Whether what stands under this name may be a secret: ``password``, ``api_key``, ``url``, ``headers``."""
    return _TELLING.search(str(name)) is not None


def veiled(value: Any) -> Any:
    """Plain data with every text in it veiled: before it becomes JSON, whose escapes would hide a value from `veil`."""
    if isinstance(value, str):
        return veil(value)
    if isinstance(value, dict):
        return {veil(key) if isinstance(key, str) else key: veiled(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [veiled(one) for one in value]
    return value


def anchored(value: Any, base: Path) -> Any:
    """Plain settings with the relative paths of ``${FILE:...}`` taken from ``base``."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: f"${{FILE:{base / found['name']}}}" if found["kind"] == "FILE" else found[0], value)
    if isinstance(value, dict):
        return {key: anchored(one, base) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(anchored(one, base) for one in value)
    return value


def remember(value: str) -> None:
    """From now on this value is taken out of texts: for what is secret but was not written as a reference (a token that a server gave)."""
    for form in _forms(value):
        if len(form) >= _SHORTEST:
            _revealed[form] = None


def _forms(value: str) -> Iterator[str]:
    yield value
    yield from (line for line in value.splitlines() if line != value)
    for encoded in (quote(value, safe=""), quote(value), quote_plus(value)):
        yield encoded
        yield _LOWER.sub(lambda found: found[0].lower(), encoded)  # %2f, as some servers write
    yield repr(value)[1:-1]
    yield repr(value.encode("utf-8", "surrogatepass"))[2:-1]
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield escape(value)
    yield from _base64(value)


def _base64(value: str) -> Iterator[str]:
    """What stands of a value in base64 wherever it begins in what was encoded (``user:password``), in both alphabets; of six bytes or more."""
    raw = value.encode("utf-8", "surrogatepass")
    for skipped in range(3):
        inner = raw[(3 - skipped) % 3 :]
        inner = inner[: len(inner) // 3 * 3]
        if len(inner) >= _SHORTEST_ENCODED:
            for encode in (b64encode, urlsafe_b64encode):
                yield encode(inner).decode()


def _value(kind: str, name: str) -> str:
    from modelinscale.core.errors import UsageError

    if kind == "ENV":
        value = os.environ.get(name, "")
        if not value:
            raise UsageError(f"the environment variable {name!r} is not set or empty.", fix=f"Set it (`export {name}=...`), or change `${{ENV:{name}}}`.")
    elif kind == "FILE":
        try:
            value = Path(name).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise UsageError(f"the secret's file {name} cannot be read: {reason}.", fix="Check the path and the rights.") from None
        if not value:
            raise UsageError(f"the secret's file {name} is empty.", fix="Write the secret into it.")
    else:
        raise UsageError(f"unknown kind of secret {kind!r}.", fix="Write `${ENV:NAME}` or `${FILE:path}`.")
    remember(value)
    return value


def _only_references(text: str) -> str:
    from modelinscale.core.errors import SpecError

    if _REFERENCE.sub("", text) or not text:
        raise SpecError("a secret must not be written here, only where it is found.", fix="Write `${ENV:NAME}` or `${FILE:path}`.")
    return _known_kinds(text)


def _no_plain_password(text: str) -> str:
    from modelinscale.core.errors import SpecError

    held = _REFERENCE.sub("REFERENCE", text)
    try:
        password = urlsplit(held).password
    except ValueError:
        raise SpecError("this address cannot be read.", fix="Write `scheme://host:port/path`.") from None  # not shown: it may hold a secret
    if password and password.replace("REFERENCE", ""):
        raise SpecError("an address must not hold a password.", fix="Put `${ENV:NAME}` or `${FILE:path}` in the password's place.")
    return _known_kinds(text)


def _known_kinds(text: str) -> str:
    from modelinscale.core.errors import SpecError

    for found in _REFERENCE.finditer(text):
        if found["kind"] not in ("ENV", "FILE") or not found["name"]:
            raise SpecError(f"{found[0]} is no reference to a secret.", fix="Write `${ENV:NAME}` or `${FILE:path}`.")
    return text


Reference = Annotated[str, AfterValidator(_only_references)]
"""Text that is a reference to a secret."""

Address = Annotated[str, AfterValidator(_no_plain_password)]
"""An address; a password in it must be a reference."""
