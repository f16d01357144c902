"""Pages of a web API: how one is asked for, which is the next, and that none comes twice."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from pydantic import Field, model_validator

from modelinscale.core.errors import SourceError, SpecError
from modelinscale.core.identity import identity
from modelinscale.core.secrets import veil
from modelinscale.core.settings import Settings
from modelinscale.data.sources._http import Client, Got, dig, document
from modelinscale.data.sources._net import shown

_LINK = re.compile(r"<([^<>]*)>\s*;([^<]*)")
_NEXT = re.compile(r"\brel\s*=\s*\"?[^\"]*\bnext\b", re.IGNORECASE)

At = int | str | None
"""Which page: a number, an offset, a token, or path and query of an address; None: the first of those that the server names."""


class Paging(Settings):
    """How the API divides its rows."""

    type: Literal["number", "offset", "cursor", "link", "next_url"]
    """number: pages count up · offset: rows to skip · cursor: a token from the page before · link: the header ``Link: <...>; rel=next`` ·
    next_url: the page holds the address of the next one."""
    param: str | None = None
    """The parameter that takes the number, the offset or the token."""
    size_param: str | None = None
    """The parameter that takes the size of a page."""
    size: int | None = Field(None, ge=1)
    """Rows in a page, as asked for; the API may give fewer."""
    start: int = Field(1, ge=0)
    """The number of the first page (for offsets always 0)."""
    next: str | None = None
    """Where in a page the next token or address stands: ``meta.next``."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.type in ("number", "offset", "cursor")) != (self.param is not None):
            words = "needs `param`, the parameter that says which page" if self.param is None else "takes no `param`: the server names the next page"
            raise SpecError(f"`page: {self.type}` {words}.")
        if (self.type in ("cursor", "next_url")) != (self.next is not None):
            words = "needs `next`, the place in a page where the next one is named" if self.next is None else "takes no `next`"
            raise SpecError(f"`page: {self.type}` {words}.")
        if (self.size is None) != (self.size_param is None):
            raise SpecError("`size` and `size_param` go together.", fix="Write both, or none.")
        return self


class Page(NamedTuple):
    """The rows of one answer as they came."""

    number: int
    """Counted from 1 in this pass."""
    at: At
    items: list[Any]
    got: Got


class Request(NamedTuple):
    """What is asked for, secrets revealed."""

    url: str
    params: dict[str, str]
    body: dict[str, Any] | None
    """For a POST: page parameters go into it."""


def pages(
    client: Client, request: Request, paging: Paging | None, rows: str, number: int = 1, at: At = None, *, headers: Mapping[str, str] | None = None
) -> Iterator[Page]:
    """The pages from one on, to the end; none where ``headers`` ask whether a document changed, and it did not.

    Raises `SourceError` when the API names a page twice or gives the same rows for two."""
    if at is None and paging is not None:
        at = {"number": paging.start, "offset": 0}.get(paging.type)
    asked, before, full = {at}, "", True
    while True:
        good = (200, 304) if headers else (200, 404) if number > 1 and not full and isinstance(at, int) else (200,)
        url, body = _address(request, paging, at)
        got = client.ask(url, body=body, headers=headers, good=good)
        if got.status != 200:  # unchanged, or beyond the last page
            return
        whole = document(got)
        items = _items(whole, rows, got, number)
        if items and (signature := identity(items)) == before:
            name = paging.param or "next" if paging else ""
            raise SourceError(
                f"{shown(url)}: page {number} has the same rows as the page before: the API goes in a circle, or does not heed {name!r}.",
                fix="Check `page` against the API's documentation.",
            )
        before = signature if items else before
        yield Page(number, at, items, got)
        if paging is None:
            return
        full = bool(paging.size and len(items) >= paging.size)
        following = _following(paging, at, items, whole, got, request)
        if following is None:
            return
        if following in asked:
            raise SourceError(
                f"{shown(url)}: page {number} names a page as the next one that was read before.", fix="Check `page` against the API's documentation."
            )
        asked.add(following)
        number, at = number + 1, following


def _following(paging: Paging, at: At, items: list[Any], whole: Any, got: Got, request: Request) -> At:
    """The page after this one; None at the end: where the server names none, or where a page is empty."""
    if paging.type in ("number", "offset"):
        assert isinstance(at, int)
        return (at + (1 if paging.type == "number" else len(items))) if items else None
    if paging.type == "link":
        found = next((one[1] for header in got.headers.get_all("Link", []) for one in _LINK.finditer(header) if _NEXT.search(one[2])), None)
    else:
        found = dig(whole, paging.next or "", shown(got.url))
    if found is None or found == "" or found is False:
        return None
    if not isinstance(found, str | int):
        raise SourceError(f"{shown(got.url)}: at {paging.next!r} stands {type(found).__name__}, neither text nor a number.", fix="Check `page.next`.")
    if paging.type == "cursor":
        return _kept(str(found), got)
    there = urlsplit(urljoin(got.url, str(found)))
    here = urlsplit(request.url)
    if (there.scheme, there.hostname, there.port) != (here.scheme, here.hostname, here.port):
        raise SourceError(
            f"{shown(got.url)} names a next page on another server: {shown(there.geturl())}.",
            fix="Name in `url` the server that has all pages; no other is asked.",
        )
    query = urlencode([pair for pair in parse_qsl(there.query, keep_blank_values=True) if pair[0] not in request.params])
    return _kept(urlunsplit(("", "", there.path or "/", query, "")), got)


def _kept(at: str, got: Got) -> str:
    """What names a page, for the cursor. Raises `SourceError` where a secret stands in it."""
    if veil(at) != at:
        raise SourceError(
            f"{shown(got.url)}: what names the next page holds a secret.", fix="Give that secret under `params` by the same name, or in `headers`."
        )
    return at


def _address(request: Request, paging: Paging | None, at: At) -> tuple[str, dict[str, Any] | None]:
    parts = urlsplit(request.url)
    own = {} if paging is None or paging.size is None else {str(paging.size_param): paging.size}
    if paging is not None and paging.type in ("link", "next_url") and isinstance(at, str):
        path, _, query = at.partition("?")
        query = "&".join(part for part in (query, urlencode(request.params, quote_via=quote)) if part)
        return urlunsplit((parts.scheme, parts.netloc, path, query, "")), request.body
    if paging is not None and paging.param is not None and at is not None:
        own[paging.param] = at  # type: ignore[assignment]
    query = urlencode({**request.params, **({} if request.body is not None else own)}, quote_via=quote)
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join(part for part in (parts.query, query) if part), ""))
    return url, None if request.body is None else {**request.body, **own}


def _items(whole: Any, rows: str, got: Got, number: int) -> list[Any]:
    """The list of rows in a page; none where null stands for it."""
    where = f"{shown(got.url)}, page {number}"
    items = dig(whole, rows, where)
    holder = dig(whole, rows.rpartition(".")[0], where)
    if items is None and isinstance(holder, dict) and rows.rpartition(".")[2] in holder:
        return []
    if not isinstance(items, list):
        keys = ", ".join(list(whole)[:12]) if isinstance(whole, dict) else ""
        place = f"at {rows!r} stands no list" if rows else "the answer is not a list"
        raise SourceError(f"{where}: {place}{f'; the answer has {keys}' if keys else ''}.", fix="Name the list of rows: `rows: data.items`.")
    return items
