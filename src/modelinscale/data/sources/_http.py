"""Requests to a web API: retried where that may help, no faster than allowed, bounded in size, and every refusal told in words."""

import json
import re
import time
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from modelinscale.core.errors import SourceError, SpecError, Unreachable
from modelinscale.core.logs import log
from modelinscale.core.secrets import references
from modelinscale.core.units import show_bytes, show_seconds
from modelinscale.data.sources._net import Answer, opened, shown

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others a little later."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LONGEST_ASKED_S = 300.0
"""A server that asks for a longer pause is not waited for: the next collect goes on."""
SHOWN_CHARS = 120
_WORDS = {401: "it does not accept the credentials", 403: "it does not allow this", 404: "there is nothing at this address", 410: "it is gone for good"}
_FIXES = {401: "Check `headers` (or the user in `url`).", 403: "Check the rights of these credentials.", 404: "Check `url`."}
_SECRET_NAME = re.compile(r"authori[sz]ation|^auth|cookie|passw|pwd|secret|token|credential|signature|(?:api|access|private|signing)_?key|^key$", re.IGNORECASE)
_AROUND = re.compile(r"[A-Za-z_]{0,12}(?:[ =:;,]+[A-Za-z_]{0,12})*[ =:]*")
"""What may stand around a reference: ``Bearer ``, ``Token token=``."""


class Got(NamedTuple):
    """An answer, whole."""

    url: str
    """Where it came from, after redirects."""
    status: int
    headers: Message
    body: bytes


class Client:
    """Asks a server, one request at a time."""

    def __init__(self, *, headers: Mapping[str, str], private: bool, timeout_s: float, retries: int, gap_s: float, most_bytes: int) -> None:
        """``gap_s``: seconds between the beginnings of two requests, at least. ``headers``: secrets revealed."""
        self._headers, self._private, self._timeout_s, self._retries, self._gap_s, self._most = headers, private, timeout_s, retries, gap_s, most_bytes
        self._asked = -1e9

    def ask(self, url: str, *, body: Any = None, headers: Mapping[str, str] | None = None, good: tuple[int, ...] = (200,)) -> Got:
        """The answer to a GET, or to a POST of ``body`` as JSON. Raises `SourceError` for a status that is not ``good``, `Unreachable` if it may pass."""
        sent = {"Accept": "application/json", "Accept-Encoding": "gzip", **self._headers, **(headers or {})}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/json"
        failed: SourceError
        for attempt in range(self._retries + 1):
            time.sleep(max(0.0, self._asked + self._gap_s - time.monotonic()))
            self._asked = time.monotonic()
            try:
                found = self._once(url, data, sent)
            except Unreachable as error:
                failed, pause = error, None
            else:
                if found.status in good:
                    return found
                failed, pause = _refusal(found), _asked_pause(found.headers)
                if found.status not in AGAIN:
                    raise failed
            if pause is not None and pause > LONGEST_ASKED_S:
                raise Unreachable(f"{shown(url)} asks for a pause of {show_seconds(pause)}.", fix="Collect again then, or lower `rate`.") from failed
            if attempt == self._retries:
                raise failed
            pause = min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S) if pause is None else pause
            log(__name__).info("asking again", extra={"url": shown(url), "pause_s": round(pause, 2), "why": str(failed)})
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, url: str, data: bytes | None, headers: Mapping[str, str]) -> Got:
        method = "GET" if data is None else "POST"
        with opened(url, method=method, headers=headers, body=data, private=self._private, timeout_s=self._timeout_s) as answer:
            return Got(answer.url, answer.status, answer.headers, self._read(answer))

    def _read(self, answer: Answer) -> bytes:
        """The body, unpacked; never more than allowed, whatever it unpacks to."""
        packed = (answer.headers.get("Content-Encoding") or "identity").lower()
        if packed not in ("identity", "gzip", "x-gzip"):
            raise SourceError(f"{shown(answer.url)} answers packed as {packed!r}, which was not asked for.", fix="Is this the API itself?")
        unpack = zlib.decompressobj(31) if packed != "identity" else None
        parts: list[bytes] = []
        size, last = 0, time.monotonic() + max(10 * self._timeout_s, 60.0)
        while data := answer.read(1 << 16):
            try:
                part = unpack.decompress(data, self._most - size + 1) if unpack else data
            except zlib.error as error:
                raise SourceError(f"{shown(answer.url)}: its gzip content is damaged ({error}).", fix="Try again.") from error
            parts.append(part)
            size += len(part)
            if size > self._most:
                raise SourceError(
                    f"{shown(answer.url)}: one answer is larger than {show_bytes(self._most)}.", fix="Ask for smaller pages, or raise `max_bytes`."
                )
            if time.monotonic() > last:
                raise Unreachable(f"{shown(answer.url)}: the answer comes too slowly.", fix="Try again, or raise `timeout`.")
        if unpack and not unpack.eof:
            raise Unreachable(f"{shown(answer.url)}: the content ended too early.", fix="Try again.")
        return b"".join(parts)


def _refusal(found: Got) -> SourceError:
    words = _WORDS.get(found.status, "it refuses" if found.status < 500 else "it fails")
    said = " ".join(found.body[: 4 * SHOWN_CHARS].decode("utf-8", "replace").split())[:SHOWN_CHARS]
    message = f"{shown(found.url)} answers {found.status}: {words}{f' ({said})' if said and not said.startswith('<') else ''}."
    if found.status in AGAIN:
        return Unreachable(message, fix="Collect again later" + (", or lower `rate`." if found.status == 429 else "."))
    return SourceError(message, fix=_FIXES.get(found.status, "Check the settings of the source."))


def _asked_pause(headers: Message) -> float | None:
    """Seconds that ``Retry-After`` asks for, given as such or as a moment; None without one that can be read."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def document(found: Got) -> Any:
    """The JSON of an answer. Raises `SourceError` for a web page, for bytes that are no text and for anything else that is not JSON."""
    import msgspec

    where, kind = shown(found.url), found.headers.get_content_type()
    head = found.body[:64].lstrip().lower()
    if kind == "text/html" or head.startswith((b"<!doctype", b"<html")):
        raise SourceError(
            f"{where} answers with a web page, not with JSON.", fix="Is this the API's address, and is no log-in asked for? Check `url` and `headers`."
        )
    body = found.body
    charset = found.headers.get_content_charset() or "utf-8"
    try:
        text = body.decode("utf-8-sig" if charset == "utf-8" else charset)
    except LookupError as error:
        raise SourceError(f"{where} answers in {charset!r}, which is no known encoding.", fix="The API should answer in UTF-8.") from error
    except UnicodeDecodeError as error:
        byte = f"0x{body[error.start]:02x} at byte {error.start:,}"
        raise SourceError(f"{where}: the answer is not {charset} ({byte}).", fix="The API should answer in UTF-8, or name its encoding.") from error
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        try:
            return json.loads(text)  # knows NaN, Infinity and numbers beyond a double
        except (ValueError, RecursionError) as error:
            begin = text[:40].strip()
            raise SourceError(
                f"{where}: the answer is not JSON ({error}): it begins with {begin!r}.", fix="Is this the API's address, and is it whole?"
            ) from error


def dig(value: Any, path: str, where: str) -> Any:
    """What stands under ``data.items``; None where an object on the way has no such key. Raises `SourceError` where there is no object on the way."""
    for step in path.split(".") if path else ():
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict):
            value = value.get(step)
        elif value is None:
            return None
        else:
            raise SourceError(f"{where}: {path!r} leads through something that is not an object, at {step!r}.", fix="Check the path against an answer.")
    return value


def no_plain_secrets(values: Mapping[str, Any], what: str) -> None:
    """Raises `SpecError` where something that is a secret by its name is written out."""
    for name, value in values.items():
        if not _SECRET_NAME.search(name.replace("-", "_")):
            continue
        rest = str(value)
        held = references(rest)
        for one in held:
            rest = rest.replace(one, "")
        if not held or not _AROUND.fullmatch(rest):
            raise SpecError(f"`{what}`: {name} looks like a secret that is written here.", fix="Write `${ENV:NAME}` or `${FILE:path}` in its place.")
