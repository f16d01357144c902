"""The source "objects": what every source must do, over a bucket, a web server and files; and what goes wrong with them."""

import functools
import gzip
import http.server
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from modelinscale.core.errors import SourceError, SpecError, UsageError
from modelinscale.data.sources import Source
from modelinscale.data.sources._objects import matcher
from modelinscale.data.sources.objects import Objects
from modelinscale.spec import loads
from modelinscale.testing import sources as suite
from modelinscale.testing.buckets import Server
from modelinscale.testing.certificates import Authority
from modelinscale.testing.clouds import CLOUDS
from modelinscale.testing.databases import NoServer
from modelinscale.testing.s3 import s3_server

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[Server]:
    with s3_server() as found:
        yield found


def put(server: Server, key: str, content: bytes | str) -> None:
    server.objects.put(f"bkt/{key}", content.encode() if isinstance(content, str) else content, absent=False)


def csv(start: int, end: int) -> str:
    return "id,name,price\n" + "".join(f"{i},n{i},{i / 2}\n" for i in range(start, end))


def parquet(start: int, end: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": range(start, end), "name": [f"n{i}" for i in range(start, end)], "price": [i / 2 for i in range(start, end)]}), sink)
    return bytes(sink.getvalue())


def jsonl(start: int, end: int) -> str:
    return "".join(f'{{"id": {i}, "name": "n{i}", "price": {i / 2}}}\n' for i in range(start, end))


WRITERS: dict[str, tuple[Callable[[int, int], Any], dict[str, Any]]] = {
    "csv": (csv, {"block": 256}),
    "parquet": (parquet, {"rows": 16}),
    "jsonl": (jsonl, {"block": 256}),
}


def objects(server: Server, url: str, **settings: Any) -> Objects:
    return Objects.model_validate({"url": url, "options": {**server.options, "client_max_retries": "1"}, **settings})


def ids(source: Source, after: Any = None) -> list[int]:
    return [int(v) for chunk in source.read(after, source.columns()) for v in chunk.batch.column("id").to_pylist()]


def last(source: Source) -> Any:
    *_, chunk = source.read(None, source.columns())
    return chunk.cursor


@pytest.fixture(params=[(kind, "s3") for kind in sorted(WRITERS)] + [("csv", "gs"), ("csv", "az")], ids="-".join)
def filled(request: pytest.FixtureRequest) -> Iterator[tuple[Objects, Callable[[], int]]]:
    kind, cloud = request.param
    write, reader = WRITERS[kind]
    with CLOUDS[cloud]() as server:
        for i in range(5):
            put(server, f"rows/d{i}/part.{kind}", write(40 * i, 40 * i + 40))

        def grow() -> int:
            put(server, f"rows/a-late-one-that-sorts-first.{kind}", write(900, 920))
            put(server, f"rows/z.{kind}", write(1000, 1033))
            return 53

        yield objects(server, f"{cloud}://bkt/rows/**/*.{kind}", reader=reader), grow


@pytest.mark.parametrize(
    "rule",
    [
        suite.from_every_cursor_the_rest_comes_once,
        suite.reading_twice_gives_the_same_chunks,
        suite.chunks_match_the_schema,
        suite.only_asked_columns_come,
        suite.at_the_end_nothing_comes,
        suite.the_fingerprint_is_plain_and_still,
        suite.settings_round_trip,
    ],
    ids=lambda rule: rule.__name__,
)
def test_objects_do_what_every_source_does(rule: Callable[[Source], None], filled: tuple[Objects, Callable[[], int]]) -> None:
    rule(filled[0])


def test_new_objects_are_read_once_wherever_they_sort(filled: tuple[Objects, Callable[[], int]]) -> None:
    suite.new_rows_come_once(*filled)


def test_a_broken_row_names_object_and_line(server: Server) -> None:
    put(server, "rows/a.csv", "id,name\n1,a\n2\n3,c\n")
    source = objects(server, "s3://bkt/rows/*.csv")
    suite.a_broken_row_names_itself(source, "line 3", 3)
    assert next(source.read(None, source.columns())).where == "s3://bkt/rows/a.csv, from line 2"


def test_a_compressed_object_and_one_alone_are_read(server: Server) -> None:
    put(server, "rows/a.csv.gz", gzip.compress(csv(0, 50).encode()))
    assert ids(objects(server, "s3://bkt/rows/a.csv.gz")) == list(range(50))


def test_an_object_that_changed_or_went_while_it_was_read_is_an_error(server: Server) -> None:
    put(server, "rows/a.csv", csv(0, 100))
    put(server, "rows/b.csv", csv(100, 200))
    source = objects(server, "s3://bkt/rows/*.csv", reader={"block": 256})
    first, *_, end = source.read(None, source.columns())
    put(server, "rows/a.csv", csv(500, 600))
    with pytest.raises(SourceError, match=r"s3://bkt/rows/a.csv changed after it was read"):
        ids(source, end.cursor)
    with pytest.raises(SourceError, match=r"s3://bkt/rows/a.csv changed or went after a part of it was read"):
        ids(source, first.cursor)
    del server.objects.held["bkt/rows/a.csv"]
    assert ids(source, end.cursor) == [], "one that was read whole may go"
    with pytest.raises(SourceError, match="changed or went after a part"):
        ids(source, first.cursor)


def test_thousands_of_objects_make_a_small_cursor(server: Server) -> None:
    for i in range(1500):
        put(server, f"rows/{i:05d}.jsonl", f'{{"id": {i}}}\n')
    source = objects(server, "s3://bkt/rows/*.jsonl")
    cursor = last(source)
    assert len(str(cursor)) < 1500 * 16 + 300
    put(server, "rows/00700a.jsonl", '{"id": 7}\n')
    assert ids(source, cursor) == [7]


REFUSED = {
    "no such bucket": (404, "NoSuchBucket", "there is no such bucket"),
    "access denied": (403, "AccessDenied", "access was denied"),
    "expired": (400, "ExpiredToken", "the credentials have expired"),
    "another region": (301, "PermanentRedirect", "the bucket is in another region"),
    "wrong key": (403, "SignatureDoesNotMatch", "the secret key does not fit"),
    "busy": (503, "SlowDown", "it answers that it is asked too often|it answers 503"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_keeps_a_bucket_from_being_listed_is_told_without_secrets(name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    status, code, words = REFUSED[name]
    monkeypatch.setenv("THE_KEY", "hush-hush-key")
    server.objects.refused["bkt"] = (status, code)
    secret = {"aws_secret_access_key": "${ENV:THE_KEY}", "aws_access_key_id": "${ENV:THE_KEY}"}
    source = Objects.model_validate({"url": "s3://bkt/rows/*.csv", "options": {**server.options, "client_max_retries": "0", **secret}})
    with pytest.raises(SourceError, match=words) as told:
        source.columns()
    assert "s3://bkt" in str(told.value)
    assert "hush" not in str(told.value) + repr(source) + str(source.plain())


@pytest.mark.parametrize("make", list(CLOUDS.values()), ids=list(CLOUDS))
def test_pages_of_names_changes_and_a_wrong_key_are_met_on_every_store(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelinscale.testing.buckets.PAGE", 20)
    with make() as server:
        for i in range(45):
            put(server, f"rows/part {i:05d}+ü.jsonl", f'{{"id": {i}}}\n')
        source = objects(server, f"{server.scheme}://bkt/rows/*.jsonl")
        *_, end = source.read(None, source.columns())
        put(server, "rows/part 00040+ü.jsonl", '{"id": 7}\n')
        with pytest.raises(SourceError, match=r"part 00040\+ü.jsonl changed after it was read"):
            ids(source, end.cursor)
        wrong = {name: server.wrong_secret if value == server.secret else value for name, value in server.options.items()}
        refused = Objects.model_construct(url=(f"{server.scheme}://bkt/rows/*.jsonl",), options={**wrong, "client_max_retries": "0"})
        with pytest.raises(SourceError, match=r"the credentials were refused|the secret key does not fit") as told:
            refused.columns()
        assert server.wrong_secret[100:140] not in str(told.value) if len(server.wrong_secret) > 200 else server.wrong_secret not in str(told.value)


def test_a_store_with_a_certificate_of_ones_own_is_read_and_others_are_told(tmp_path: Path) -> None:
    try:
        ours, other = Authority(tmp_path / "ours"), Authority(tmp_path / "other", "Somebody")
    except NoServer as reason:
        pytest.skip(str(reason))

    def read(certificate: Path, ca: Path | None) -> list[int]:
        with s3_server(signed=True, certificate=certificate) as server:
            put(server, "rows/a.csv", csv(0, 10))
            trust = {"root_certificate": f"${{FILE:{ca}}}"} if ca else {}
            return ids(objects(server, "s3://bkt/rows/*.csv", options={**server.options, "client_max_retries": "0", **trust}))

    good = ours.both("good")
    assert read(good, ours.ca) == list(range(10))
    for certificate, ca, words in (
        (good, None, "from an authority that this machine does not trust. Have this machine trust the authority, or name .* SSL_CERT_FILE"),
        (good, other.ca, "from an authority that this machine does not trust"),
        (ours.both("old", "expired"), ours.ca, "its certificate has expired"),
        (ours.both("far", "another host"), ours.ca, "its certificate is for another name"),
    ):
        with pytest.raises(SourceError, match=words):
            read(certificate, ca)


def test_an_archived_object_is_told(server: Server) -> None:
    put(server, "rows/a.csv", csv(0, 10))
    server.objects.refused["bkt/rows/a.csv"] = (403, "InvalidObjectState")
    with pytest.raises(SourceError, match=r"Cannot read s3://bkt/rows/a.csv: the object is archived. Restore it"):
        objects(server, "s3://bkt/rows/*.csv").columns()


def test_what_cannot_be_reached_or_found_is_told(server: Server) -> None:
    with pytest.raises(SourceError, match="no object matches s3://bkt/none"):
        objects(server, "s3://bkt/none/*.csv").columns()
    with pytest.raises(SourceError, match=r"there is no s3://bkt/none.csv"):
        objects(server, "s3://bkt/none.csv").columns()
    nobody = Objects.model_validate({"url": "s3://bkt/x/*.csv", "options": {**server.options, "aws_endpoint": "http://127.0.0.1:1", "client_max_retries": "0"}})
    with pytest.raises(SourceError, match=r"Cannot list s3://bkt/x: it cannot be reached"):
        nobody.columns()
    plain = Objects.model_validate({"url": "s3://bkt/x/*.csv", "options": {k: v for k, v in server.options.items() if k != "allow_http"}})
    with pytest.raises(SourceError, match=r"Cannot list s3://bkt/x: its endpoint is http, .* Set `allow_http: 'true'` under its `options`"):
        plain.columns()


def test_a_missing_client_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("obstore", "obstore.store"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=r"pip install 'modelinscale\[objects\]'"):
        Objects.model_validate({"url": "s3://bkt/x/*.csv"}).columns()


def test_a_damaged_object_is_named_by_its_address(server: Server) -> None:
    put(server, "rows/a.parquet", parquet(0, 40)[:-30])
    with pytest.raises(SourceError, match=r"^s3://bkt/rows/a.parquet cannot be read as Parquet"):
        objects(server, "s3://bkt/rows/*.parquet").columns()


def test_a_disk_without_room_is_told_before_an_object_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    put(server, "rows/a.csv", csv(0, 10))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(SourceError, match=r"s3://bkt/rows/a.csv has .*free. Free some space, or name another folder in `spool`"):
        objects(server, "s3://bkt/rows/*.csv").columns()


def test_nothing_of_the_objects_stays_on_the_disk(server: Server, tmp_path: Path) -> None:
    put(server, "rows/a.csv", csv(0, 100))
    source = objects(server, "s3://bkt/rows/*.csv", spool=tmp_path / "spool")
    assert len(ids(source)) == 100
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.fixture
def folder_on_the_web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Says nothing."""

    folder = tmp_path / "www"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}", folder
        found.shutdown()
        thread.join()


def test_a_folder_of_a_web_server_is_listed_and_read(folder_on_the_web: tuple[str, Path]) -> None:
    url, folder = folder_on_the_web
    for i in range(3):
        (folder / f"part {i}.csv").write_text(csv(10 * i, 10 * i + 10), encoding="utf-8")
    (folder / "other.txt").write_text("x", encoding="utf-8")
    source = Objects.model_validate({"url": f"{url}/part*.csv", "private": True})
    assert ids(source) == list(range(30))
    suite.from_every_cursor_the_rest_comes_once(source)
    (folder / "part 9.csv").write_text(csv(90, 95), encoding="utf-8")
    assert ids(source, last(source)) == []
    with pytest.raises(SourceError, match="the server answers 404"):
        Objects.model_validate({"url": f"{url}/none.csv", "private": True}).columns()


def test_a_web_address_of_this_machine_is_refused_unless_asked_for(folder_on_the_web: tuple[str, Path]) -> None:
    with pytest.raises(SourceError, match="a private address"):
        Objects.model_validate({"url": f"{folder_on_the_web[0]}/a.csv"}).columns()
    with pytest.raises(SourceError, match="a link-local address"):
        Objects.model_validate({"url": "http://169.254.169.254/latest/a.csv", "private": True}).columns()


def test_files_by_address_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(csv(0, 10), encoding="utf-8")
    assert ids(Objects.model_validate({"url": f"file://{tmp_path}/*.csv"})) == list(range(10))


def test_the_short_form_is_an_address() -> None:
    source = loads("data: {source: 's3://b/rows/*.csv'}\ntarget: y\n").data.source
    assert source == Objects.model_validate({"url": "s3://b/rows/*.csv"})
    with pytest.raises(SpecError, match="format cannot be told"):
        loads("data: {source: 's3://b/rows/*'}\ntarget: y\n")


def test_what_settings_cannot_mean_is_refused() -> None:
    with pytest.raises((SpecError, ValidationError), match="different formats"):
        Objects.model_validate({"url": ["s3://b/a.csv", "s3://b/a.parquet"]})
    with pytest.raises((SpecError, ValidationError), match="settings of the format only"):
        Objects.model_validate({"url": "s3://b/a.csv", "reader": {"path": "/etc/passwd"}})


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [("a/*.csv", "a/b.csv", "a/b/c.csv"), ("a/**/*.csv", "a/b/c/d.csv", "b/a/c.csv"), ("a/?[0-9].csv", "a/x1.csv", "a/xx.csv"), ("a[!b].c", "ac.c", "ab.c")],
)
def test_patterns_mean_what_they_mean_for_files(pattern: str, yes: str, no: str) -> None:
    assert matcher(pattern).fullmatch(yes)
    assert not matcher(pattern).fullmatch(no)
