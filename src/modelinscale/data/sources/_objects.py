"""Objects by pattern: what an address on an object store, a web server or a disk names, and one of them as a local file."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from glob import glob
from html import unescape
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote, urljoin, urlsplit

from modelinscale.core.bucket import SCHEMES, Absent, connect, plain, told
from modelinscale.core.errors import NothingYet, SourceError, Unreachable
from modelinscale.core.secrets import reveal
from modelinscale.core.units import show_bytes
from modelinscale.data.sources._net import Answer, opened

_ROOM_BYTES = 64 << 20
"""Left free on the disk that objects are brought to."""
_PART_BYTES = 4 << 20
_TRIES = 6
_PAGE_BYTES = 16 << 20
_AGAIN = (408, 425, 429, 500, 502, 503, 504)


class Found(NamedTuple):
    """One object."""

    name: str
    """Its address, as messages and cursors have it."""
    size: int
    tag: str
    """Another one for other content: the ETag, or size and time of change."""
    modified_ns: int


class Access(NamedTuple):
    """How addresses are reached."""

    options: Mapping[str, str]
    private: bool


def listed(pattern: str, access: Access) -> list[Found]:
    """The objects that an address names, sorted by name. Raises `SourceError` when there is none, and what keeps it from being listed."""
    scheme = urlsplit(pattern).scheme
    find = _in_bucket if scheme in SCHEMES else _on_web if scheme in ("http", "https") else _on_disk
    found = sorted(find(pattern, access))
    if not found:
        raise NothingYet(f"no object matches {plain(pattern)}.", fix="Check the address and the pattern (`*` stays within a folder, `**/` is any depth).")
    return found


def fetch(one: Found, pattern: str, target: Path, access: Access, first: int | None = None) -> None:
    """Writes an object (or its ``first`` bytes) to a local file that then has its time of change.

    Raises `SourceError` when it is not what was listed any more, came in part, or does not fit on the disk.
    """
    wanted = one.size if first is None else min(first, one.size)
    free = shutil.disk_usage(target.parent).free
    if free < wanted + _ROOM_BYTES:
        fix = "Free some space, or name another folder in `spool`."
        raise SourceError(f"{one.name} has {show_bytes(one.size)}; {target.parent} has {show_bytes(free)} free.", fix=fix)
    scheme = urlsplit(one.name).scheme
    n = (_from_bucket if scheme in SCHEMES else _from_web if scheme in ("http", "https") else _from_disk)(one, pattern, target, access, wanted)
    if n != wanted:
        raise SourceError(f"{one.name}: {n:,} bytes came, {wanted:,} were expected.", fix="Collect again; if it stays so, the object is being written.")
    os.utime(target, ns=(one.modified_ns, one.modified_ns))


def matcher(pattern: str) -> re.Pattern[str]:
    """A pattern as an expression: ``*`` and ``?`` stay within a folder, ``**/`` is any number of folders.

    >>> bool(matcher("a/**/x*.csv").fullmatch("a/b/c/x1.csv")), bool(matcher("a/*.csv").fullmatch("a/b/c.csv"))
    (True, False)
    """
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]/]+\])", pattern)
    classes = {p: p.replace("[!", "[^") for p in pieces if p.startswith("[") and p.endswith("]") and len(p) > 2}
    return re.compile("".join(parts.get(p) or classes.get(p) or re.escape(p) for p in pieces), re.DOTALL)


def has_pattern(path: str) -> bool:
    return re.search(r"[*?]|\[[^\]/]+\]", path) is not None


def _fixed(path: str) -> str:
    """The folder before the first part with a pattern, with its slash."""
    found = re.search(r"[*?\[]", path)
    return path[: path.rfind("/", 0, found.start() if found else len(path)) + 1]


def _changed(one: Found) -> SourceError:
    return SourceError(f"{one.name} changed or went while it was read.", fix="Collect again. Objects are read once: give new rows an object of their own.")


# Object stores.


def _split(address: str) -> tuple[str, str]:
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or "@" in bucket:
        raise SourceError(f"{plain(address)} names no bucket.", fix=f"Write `{scheme}://bucket/rows/*.csv`.")
    return f"{scheme}://{bucket}", key


def _in_bucket(pattern: str, access: Access) -> Iterator[Found]:
    bucket, key = _split(pattern)
    store = connect(bucket, access.options)  # says what to install, so it comes first
    import obstore

    try:
        if has_pattern(key):
            match, folder = matcher(key), _fixed(key).rstrip("/")
            with told(SourceError, f"{bucket}/{folder}", "list"):
                for page in obstore.list(store, folder or None, chunk_size=1000):
                    yield from (_found(bucket, about) for about in page if match.fullmatch(about["path"]))
        else:
            if not key or key.endswith("/"):
                raise SourceError(f"{pattern} is a folder.", fix=f"Name its objects: `{pattern.rstrip('/')}/*.csv`.")
            with told(SourceError, pattern, "read"):
                yield _found(bucket, obstore.head(store, key))
    except Absent as error:
        raise SourceError(error.message, fix="Check bucket and name.") from None


def _found(bucket: str, about: "Mapping[str, object]") -> Found:
    moment, size, tag = about["last_modified"], about["size"], about["e_tag"]
    modified_ns = round(moment.timestamp() * 1e6) * 1000  # type: ignore[attr-defined]
    return Found(f"{bucket}/{about['path']}", int(str(size)), str(tag or f"{size}-{modified_ns}"), modified_ns)


def _from_bucket(one: Found, pattern: str, target: Path, access: Access, wanted: int) -> int:
    import obstore
    from obstore.exceptions import PreconditionError

    bucket, key = _split(one.name)
    n = 0
    try:
        with told(SourceError, one.name, "read"), target.open("wb") as file:
            if wanted == 0:
                return 0
            options: obstore.GetOptions = {"range": (0, wanted)} if wanted < one.size else {}
            if one.tag.startswith(('"', "W/")):
                options["if_match"] = one.tag
            got = obstore.get(connect(bucket, access.options), key, options=options)
            if got.meta["size"] != one.size:
                raise _changed(one)
            for part in got.stream(_PART_BYTES):
                n += file.write(part)
    except (Absent, PreconditionError):
        raise _changed(one) from None
    return n


# Web servers.


def _on_web(pattern: str, access: Access) -> Iterator[Found]:
    parts = urlsplit(pattern)
    if not has_pattern(parts.path):
        yield _tried(pattern, access, "HEAD", lambda answer: _about(pattern, answer))
        return
    folder = _fixed(parts.path)
    if has_pattern(folder) or "/" in parts.path[len(folder) :]:
        raise SourceError(f"{plain(pattern)}: a web server's folders are listed one by one.", fix="Keep the pattern in the last part of the address.")
    base = f"{parts.scheme}://{parts.netloc}{folder}"
    page = _tried(base, access, "GET", lambda answer: _body(answer, _PAGE_BYTES))
    match = matcher(parts.path)
    links = {urljoin(base, unescape(link)) for link in re.findall(r"""href\s*=\s*["']?([^"'\s>]+)""", page.decode("utf-8", "replace"), re.IGNORECASE)}
    for link in sorted(links):
        if link.startswith(base) and match.fullmatch(unquote(urlsplit(link).path)):
            yield _tried(link, access, "HEAD", lambda answer, link=link: _about(link, answer))  # type: ignore[misc]


def _about(address: str, answer: Answer) -> Found:
    size = answer.headers.get("Content-Length")
    if size is None:
        raise SourceError(f"{plain(address)}: the server does not say how large it is.", fix="Download it, and name the file.")
    changed = answer.headers.get("Last-Modified")
    moment = parsedate_to_datetime(changed) if changed else None
    if moment is not None and moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    modified_ns = int(moment.timestamp()) * 10**9 if moment else 0
    return Found(plain(address), int(size), answer.headers.get("ETag") or f"{size}-{modified_ns}", modified_ns)


def _body(answer: Answer, most: int) -> bytes:
    parts, n = list[bytes](), 0
    while part := answer.read(1 << 20):
        parts.append(part)
        n += len(part)
        if n > most:
            raise SourceError(f"{plain(answer.url)} is longer than {show_bytes(most)}.", fix="Name its files one by one.")
    return b"".join(parts)


def _from_web(one: Found, pattern: str, target: Path, access: Access, wanted: int) -> int:
    address = pattern if plain(pattern) == one.name else one.name

    def save(answer: Answer) -> int:
        n = 0
        tag = answer.headers.get("ETag")
        if tag is not None and one.tag.startswith(('"', "W/")) and tag != one.tag:
            raise _changed(one)
        with target.open("wb") as file:
            while n < wanted and (part := answer.read(min(_PART_BYTES, wanted - n))):
                n += file.write(part)
        return n

    return _tried(address, access, "GET", save)


T = TypeVar("T")


def _tried(address: str, access: Access, method: str, take: Callable[[Answer], T]) -> T:
    """What is taken from the server's answer; asked again, ever later, while the server is busy or the connection breaks."""
    for left in reversed(range(_TRIES)):
        pause = 0.25 * 2 ** (_TRIES - left)
        try:
            with opened(reveal(address, in_url=True), method=method, private=access.private) as answer:
                if answer.status == 200:
                    return take(answer)
                status, asked = answer.status, answer.headers.get("Retry-After", "")
        except Unreachable:
            if not left:
                raise
            time.sleep(pause)
            continue
        if status not in _AGAIN or not left:
            fix = {401: "It needs credentials.", 403: "It does not let this machine read it.", 404: "Check the address."}.get(status, "Try again later.")
            raise SourceError(f"{plain(address)}: the server answers {status}.", fix=fix)
        time.sleep(min(30.0, float(asked)) if asked.isdigit() else pause)
    raise AssertionError("the last try returns or raises")


# Files.


def _on_disk(pattern: str, access: Access) -> Iterator[Found]:
    parts = urlsplit(pattern)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise SourceError(f"{plain(pattern)} is no address of objects.", fix="Write s3://, gs://, az://, https:// or file:///absolute/path.")
    path = unquote(parts.path)
    for name in glob(path, recursive=True) if has_pattern(path) else [path]:  # noqa: PTH207
        one = Path(name)
        if one.is_file():
            about = one.stat()
            yield Found(f"file://{quote(name)}", about.st_size, f"{about.st_size}-{about.st_mtime_ns}", about.st_mtime_ns)


def _from_disk(one: Found, pattern: str, target: Path, access: Access, wanted: int) -> int:
    try:
        with Path(unquote(urlsplit(one.name).path)).open("rb") as source, target.open("wb") as file:
            left = wanted
            while left and (part := source.read(min(_PART_BYTES, left))):
                left -= file.write(part)
    except OSError as error:
        raise SourceError(f"{one.name} cannot be read: {error.strerror}.", fix="Check the path and the rights.") from error
    return wanted - left
