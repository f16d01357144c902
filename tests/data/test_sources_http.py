"""Web APIs as sources: every way of paging against a real server, and whatever servers do wrong."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from modelinscale.core.errors import SourceError, SpecError, Unreachable
from modelinscale.data.arrow import BROKEN
from modelinscale.data.clean import clean
from modelinscale.data.collect import collect
from modelinscale.data.contract import contract
from modelinscale.data.lake import open_table
from modelinscale.data.sources import Cursor, Source
from modelinscale.testing import sources as suite

pytestmark = pytest.mark.slow

Answer = tuple[int, dict[str, str], bytes]


class Api:
    """A web server whose answers a test decides: ``answer`` gets path, query, headers and body."""

    def __init__(self) -> None:
        self.rows: list[Any] = [{"id": i, "at": f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}", "amount": i / 4} for i in range(95)]
        self.seen: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.answer: Callable[[str, dict[str, str], dict[str, str], bytes], Answer] = self.paged
        self.most = 1000
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
                headers = {k.lower(): v for k, v in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", 0)))
                api.seen.append((url.path, query, headers))
                status, more, data = api.answer(url.path, query, headers, body)
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815  the name that the server asks for

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.url = f"http://{self.host}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def paged(self, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        """All ways of paging, by path."""
        if body:
            query = {**query, **{k: str(v) for k, v in json.loads(body).items()}}
        rows = [r for r in self.rows if "since" not in query or r["at"] >= query["since"]]
        size = min(int(query.get("per_page", 20)), self.most)
        more: dict[str, str] = {}
        if path == "/number":
            first = (int(query["page"]) - 1) * size
        elif path in ("/offset", "/token", "/link", "/url"):
            first = int(query.get("from", 0))
        else:
            return 200, {}, json.dumps(rows).encode()
        following = str(first + size) if first + size < len(rows) else None
        address = f"{self.url}{path}?from={following}&key={query.get('key', '')}" if following else None
        if path == "/link" and address:
            more["Link"] = f'<{self.url}/link?from=0>; rel="first", <{address}>; rel="next"'
        meta = {"next": following if path == "/token" else address}
        return 200, more, json.dumps({"data": {"items": rows[first : first + size]}, "meta": meta}).encode()

    def source(self, path: str = "/", **settings: Any) -> Source:
        return Source.parse({"type": "http", "url": self.url + path, "private": True, "rate": "1000/s", "timeout": "5s", "retries": 0, **settings})


PAGES: dict[str, dict[str, Any]] = {
    "/number": {"type": "number", "param": "page", "size_param": "per_page", "size": 20},
    "/offset": {"type": "offset", "param": "from", "size_param": "per_page", "size": 20},
    "/token": {"type": "cursor", "param": "from", "next": "meta.next"},
    "/link": {"type": "link"},
    "/url": {"type": "next_url", "next": "meta.next"},
}
WAYS = pytest.mark.parametrize("path", PAGES)


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    yield made
    made.close()


def paged(api: Api, path: str, **settings: Any) -> Source:
    return api.source(path, rows="data.items", page=PAGES[path], **settings)


def rows_of(source: Source, after: Cursor | None = None) -> tuple[list[dict[str, Any]], Cursor | None]:
    """The rows, and the cursor as it comes back from where it was kept."""
    schema = source.columns()
    found = []
    for chunk in source.read(after, schema):
        found += clean(chunk.batch, schema).batch.to_pylist()
        after = json.loads(json.dumps(chunk.cursor))
    return found, after


def ids(source: Source, after: Cursor | None = None) -> list[int]:
    return [row["id"] for row in rows_of(source, after)[0]]


@WAYS
def test_every_way_of_paging_keeps_the_contract(api: Api, path: str) -> None:
    source = paged(api, path)
    suite.from_every_cursor_the_rest_comes_once(source)
    suite.reading_twice_gives_the_same_chunks(source)
    suite.chunks_match_the_schema(source)
    suite.only_asked_columns_come(source)
    suite.at_the_end_nothing_comes(source)
    suite.settings_round_trip(source)
    assert ids(source) == list(range(95))


@WAYS
@pytest.mark.parametrize("chunk", [7, 10_000])
def test_rows_added_at_the_end_come_once(api: Api, path: str, chunk: int) -> None:
    source = paged(api, path, chunk=chunk)

    def grow() -> int:
        api.rows += [{"id": 95 + i, "at": "2026-02-01T00:00:00", "amount": 1.0} for i in range(27)]
        return 27

    suite.new_rows_come_once(source, grow)


@WAYS
def test_rows_by_a_growing_field_come_once_whatever_shares_the_last_value(api: Api, path: str) -> None:
    source = paged(api, path, since={"param": "since", "column": "at"})
    suite.from_every_cursor_the_rest_comes_once(source)
    everything, after = rows_of(source)
    assert [r["id"] for r in everything] == list(range(95))
    last = api.rows[-1]["at"]
    api.rows += [{"id": 95, "at": last, "amount": 0.0}, dict(api.rows[-1]), {"id": 97, "at": "2026-03-01", "amount": 0.0}]
    new, after = rows_of(source, after)
    assert [r["id"] for r in new] == [95, 94, 97]  # the second one like row 94 is a row of its own
    assert api.seen[-1][1]["since"] == last
    assert rows_of(source, after)[0] == []


def test_a_page_size_that_the_server_caps_loses_no_row(api: Api) -> None:
    api.most = 8
    for path in ("/number", "/offset"):
        assert ids(paged(api, path)) == list(range(95))


def test_a_page_beyond_the_last_one_may_be_missing(api: Api) -> None:
    api.answer = lambda path, query, headers, body: (404, {}, b"{}") if int(query["page"]) > 5 else api.paged(path, query, headers, body)
    assert ids(paged(api, "/number")) == list(range(95))


def test_a_post_asks_with_its_body(api: Api) -> None:
    source = paged(api, "/offset", method="POST", body={"kind": "x"})
    assert ids(source) == list(range(95))
    assert all("from" not in query for _, query, _ in api.seen)


def test_an_unchanged_document_is_not_read_again(api: Api) -> None:
    def answer(path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        tag = f'"{len(api.rows)}"'
        return (304, {}, b"") if headers.get("if-none-match") == tag else (200, {"ETag": tag}, json.dumps(api.rows).encode())

    api.answer = answer
    source = api.source(chunk=40)
    _, after = rows_of(source)
    assert list(source.read(after, source.columns())) == []
    assert api.seen[-1][2]["if-none-match"] == '"95"'
    api.rows.append({"id": 95, "at": "2026", "amount": 1.0})
    assert ids(source, after) == [95]


def test_pages_packed_with_gzip_are_unpacked_but_no_bomb_is(api: Api) -> None:
    api.answer = lambda *_: (200, {"Content-Encoding": "gzip"}, gzip.compress(json.dumps(api.rows).encode()))
    assert ids(api.source()) == list(range(95))
    api.answer = lambda *_: (200, {"Content-Encoding": "gzip"}, gzip.compress(b"[" + b" " * 50_000_000 + b"]"))
    with pytest.raises(SourceError, match=r"one answer is larger than 1\.0 MiB"):
        api.source(max_bytes="1MiB").columns()


def test_an_overloaded_server_is_asked_again_after_the_pause_it_wants(api: Api) -> None:
    answers = iter([429, 503, 502])

    def answer(*args: Any) -> Answer:
        status = next(answers, 200)
        return (status, {"Retry-After": "0"}, b"busy") if status != 200 else api.paged(*args)

    api.answer = answer
    assert len(ids(api.source(retries=3, columns={"id": "int"}))) == 95
    answers = iter([503] * 9)
    with pytest.raises(Unreachable, match=r"answers 503: it fails \(busy\)"):
        ids(api.source(retries=1, columns={"id": "int"}))
    api.answer = lambda *_: (429, {"Retry-After": "86400"}, b"")
    with pytest.raises(Unreachable, match="asks for a pause of 1"):
        api.source(retries=3).columns()


def test_no_more_requests_are_made_than_the_rate_allows(api: Api) -> None:
    from time import monotonic

    begin = monotonic()
    ids(paged(api, "/token", rate="20/s", columns={"id": "int"}))
    assert monotonic() - begin >= 4 / 20


def test_elements_that_are_no_objects_are_broken_rows_that_name_their_page(api: Api) -> None:
    api.rows[23] = [1, 2]
    suite.a_broken_row_names_itself(paged(api, "/number"), "page 2, element 4", 95)


def test_a_row_without_the_field_that_is_asked_by_is_broken(api: Api) -> None:
    api.rows = [{"id": 1, "at": "2026"}, {"id": 2, "at": None}]
    source = api.source(since={"param": "from", "column": "at"})
    suite.a_broken_row_names_itself(source, "page 1, element 2", 2)


def _bad(status: int, body: bytes, **headers: str) -> Callable[..., Answer]:
    return lambda *_: (status, {k.replace("_", "-"): v for k, v in headers.items()}, body)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_bad(200, b"<html>Log in</html>", Content_Type="text/html"), "a web page, not with JSON"),
        (_bad(200, b"  <!DOCTYPE html><html>"), "a web page, not with JSON"),
        (_bad(200, b'{"a": '), "not JSON"),
        (_bad(200, b""), "not JSON"),
        (_bad(200, b'[{"a": "caf\xe9"}]'), "not utf-8 .0xe9 at byte 11"),
        (_bad(200, b"[]", Content_Type="application/json; charset=klingon"), "no known encoding"),
        (_bad(200, b'{"items": []}'), "the answer is not a list; the answer has items"),
        (_bad(200, b'"text"'), "the answer is not a list"),
        (_bad(200, b"[]"), "no row yet to tell the columns"),
        (_bad(200, b"[1, 2]"), "none of the first 2 elements is an object"),
        (_bad(200, b'[{"": 1}]'), "field names must not be empty"),
        (_bad(200, b"[" * 100_000), "not JSON"),
        (_bad(200, b"[]", Content_Encoding="br"), "packed as 'br'"),
        (_bad(200, b"no gzip", Content_Encoding="gzip"), "its gzip content is damaged"),
        (_bad(200, gzip.compress(b"[]")[:-9], Content_Encoding="gzip"), "the content ended too early"),
        (_bad(200, b"[]", Content_Length="1000"), "content ended 998 bytes too early|connection broke"),
        (_bad(401, b"who?"), "401: it does not accept the credentials .who"),
        (_bad(403, b""), "403: it does not allow this"),
        (_bad(404, b""), "404: there is nothing at this address"),
        (_bad(410, b""), "410: it is gone for good"),
        (_bad(418, b""), "418: it refuses"),
        (_bad(500, b""), "500: it fails"),
        (_bad(302, b"", Location="http://169.254.169.254/latest/meta-data"), "leads to 169.254.169.254, a link-local address"),
        (_bad(302, b"", Location="file:///etc/passwd"), "no address of a web server"),
        (_bad(302, b"", Location="/again"), "more than 5 redirects"),
    ],
)
def test_what_servers_do_wrong_is_told(api: Api, answer: Callable[..., Answer], says: str) -> None:
    api.answer = answer
    with pytest.raises(SourceError, match=says) as caught:
        api.source().columns()
    assert caught.value.fix


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rows": "data.nothing"}, "at 'data.nothing' stands no list; the answer has data, meta"),
        ({"rows": "data.items.0.id.x"}, "leads through something that is not an object, at 'x'"),
        ({"page": {"type": "next_url", "next": "data"}}, "at 'data' stands dict"),
    ],
)
def test_a_path_that_is_not_there_is_told(api: Api, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        ids(api.source("/url", **{"rows": "data.items", "columns": {"id": "int"}, **settings}))


def test_a_next_page_named_nowhere_is_warned_of(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    more = {"rows": "data.items", "columns": {"id": "int"}}
    for name, warned in (("meta.nxt", True), ("meta.next", False)):
        caplog.clear()
        ids(api.source("/token", page={"type": "cursor", "param": "from", "next": name}, **more))
        assert any("is `page.next` right?" in r.message for r in caplog.records) == warned


def test_a_collect_that_broke_off_goes_on_where_it_was(api: Api, tmp_path: Path) -> None:
    source = paged(api, "/number")
    schema = source.columns()

    def run() -> int:
        return collect(source, lake=str(tmp_path / "t"), quarantine=str(tmp_path / "q"), contract=contract(schema, key=("id",)), commit_rows=20).n_rows

    api.answer = lambda path, query, headers, body: (401, {}, b"") if query["page"] == "4" else api.paged(path, query, headers, body)
    with pytest.raises(SourceError, match="401"):
        run()
    kept = open_table(str(tmp_path / "t")).n_rows
    assert 0 < kept < 95
    api.answer = api.paged
    assert run() == 95
    assert api.seen[-6][1]["page"] != "1"
    assert sorted(i for b in open_table(str(tmp_path / "t")).blocks(["id"]) for i in b.column(0).to_pylist()) == list(range(95))


def test_a_server_that_does_not_speak_tls_is_told(api: Api) -> None:
    with pytest.raises(SourceError, match="no secured connection"):
        Source.parse({"type": "http", "url": f"https://{api.host}/", "private": True, "retries": 0}).columns()


def test_a_server_that_goes_in_a_circle_is_left(api: Api) -> None:
    api.answer = lambda path, query, headers, body: api.paged(path, {**query, "page": "1", "from": "0"}, headers, body)
    for path, says in (("/number", "does not heed 'page'"), ("/offset", "does not heed 'from'"), ("/token", "same rows|read before"), ("/link", "same rows")):
        with pytest.raises(SourceError, match=says):
            list(paged(api, path).read(None, paged(api, path, columns={"id": "int"}).columns()))


def test_a_token_that_comes_again_is_told(api: Api) -> None:
    def answer(path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
        n = int(query.get("from", 0))
        return 200, {}, json.dumps({"data": {"items": [{"id": len(api.seen)}]}, "meta": {"next": str((n + 1) % 3 + 1)}}).encode()

    api.answer = answer
    with pytest.raises(SourceError, match="names a page as the next one that was read before"):
        list(paged(api, "/token", columns={"id": "int"}).read(None, paged(api, "/token", columns={"id": "int"}).columns()))


def test_rows_that_changed_behind_the_reader_stop_it(api: Api) -> None:
    source = paged(api, "/number")
    _, after = rows_of(source)
    api.rows.insert(0, {"id": -1, "at": "2025", "amount": 0.0})
    with pytest.raises(SourceError, match=r"page 5 no longer begins with the 15 rows that were read from it.*Collect into a new table"):
        rows_of(source, after)


def test_a_growing_field_of_two_kinds_has_no_order(api: Api) -> None:
    api.rows = [{"id": 1, "v": 3}, {"id": 2, "v": "x"}]
    with pytest.raises(SourceError, match=r"'v' is 'x' in one row and was 3"):
        rows_of(api.source(columns={"id": "int"}, since={"param": "from", "column": "v"}))


def test_a_private_server_needs_to_be_asked_for(api: Api) -> None:
    with pytest.raises(SourceError, match=r"leads to 127\.0\.0\.1, a private address.*private: true"):
        api.source(private=False).columns()
    for address in ("169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:169.254.169.254]", "2852039166"):
        with pytest.raises(SourceError, match=r"a link-local address|a reserved address"):
            Source.parse({"type": "http", "url": f"http://{address}/latest", "private": True}).columns()
    with pytest.raises(Unreachable, match="cannot be reached"):
        Source.parse({"type": "http", "url": "http://127.0.0.1:9/", "private": True, "retries": 0}).columns()


def test_credentials_never_follow_to_another_server(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t-t0ken")
    other = Api()
    try:
        api.answer = lambda *_: (302, {"Location": f"{other.url}/"}, b"")
        settings: dict[str, Any] = {"headers": {"Authorization": "Bearer ${ENV:TOKEN}", "X-Api-Key": "${ENV:TOKEN}"}}
        api.source(**settings).columns()
        assert api.seen[-1][2]["authorization"] == "Bearer s3cr3t-t0ken"
        assert "s3cr3t" not in json.dumps(other.seen)
        api.answer = lambda *_: (200, {}, json.dumps({"items": [{"id": 1}], "next": f"{other.url}/more"}).encode())
        with pytest.raises(SourceError, match="names a next page on another server"):
            ids(api.source(rows="items", page={"type": "next_url", "next": "next"}, columns={"id": "int"}))
    finally:
        other.close()


def test_no_secret_reaches_cursor_error_or_feed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "s3cr3t-t0ken")
    source = paged(api, "/url", params={"key": "${ENV:TOKEN}"}, headers={"Authorization": "Token ${ENV:TOKEN}"})
    rows, after = rows_of(source)
    assert len(rows) == 95
    assert all(query["key"] == "s3cr3t-t0ken" for _, query, _ in api.seen)
    assert "s3cr3t" not in json.dumps([after, source.feed(), source.plain()])
    api.answer = lambda path, query, headers, body: (400, {}, f"bad key {query['key']} {headers['authorization']}".encode())
    with pytest.raises(SourceError, match="400") as caught:
        source.columns()
    assert "s3cr3t" not in str(caught.value)
    api.answer = lambda *_: (200, {"Link": f'<{api.url}/link?other=s3cr3t-t0ken>; rel="next"'}, b'{"data": {"items": [{"id": 1}]}}')
    with pytest.raises(SourceError, match="what names the next page holds a secret"):
        source.but(page=PAGES["/link"]).columns()


def test_a_user_in_the_address_is_sent_as_basic_credentials(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "pä:ss/w")
    Source.parse({"type": "http", "url": f"http://mis:${{ENV:PW}}@{api.host}/", "private": True}).columns()
    from base64 import b64decode

    assert b64decode(api.seen[-1][2]["authorization"].removeprefix("Basic ")).decode() == "mis:pä:ss/w"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"headers": {"Authorization": "Bearer eyJhbGciOi"}}, "Authorization looks like a secret that is written here"),
        ({"headers": {"X-Api-Key": "abc"}}, "X-Api-Key looks like a secret"),
        ({"headers": {"Authorization": "Bearer ${ENV:A}x9f8e7"}}, "looks like a secret"),
        ({"headers": {"X": "a\nb"}}, "is no header"),
        ({"params": {"api_key": "abc"}}, "api_key looks like a secret"),
        ({"url": "https://mis:pass@host/"}, "an address must not hold a password"),
        ({"url": "ftp://host/"}, "no address of a web server"),
        ({"rate": "fast"}, "is no rate"),
        ({"page": {"type": "number"}}, "needs `param`"),
        ({"page": {"type": "link", "param": "x"}}, "takes no `param`"),
        ({"page": {"type": "cursor", "param": "x"}}, "needs `next`"),
        ({"page": {"type": "offset", "param": "x", "size": 3}}, "go together"),
        ({"body": {"a": 1}}, "`body` is for `method: POST`"),
        ({"params": {"s": 1}, "since": {"param": "s", "column": "c"}}, "both set 's'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Source.parse({"type": "http", "url": "https://host/", **settings})
    assert issubclass(SpecError, ValueError)


def test_broken_rows_are_marked(api: Api) -> None:
    api.rows = [{"id": 1}, 7]
    source = api.source()
    (chunk,) = source.read(None, source.columns())
    assert chunk.batch.column(BROKEN).to_pylist() == [None, "a number where an object was expected: page 1, element 2: 7"]
