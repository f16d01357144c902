"""Sources that are broken, hostile or out of reach: what, where and what to do is told, nothing is lost or doubled, and a later collect goes on."""

import gzip
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modelinscale.core.errors import MisError, SourceError, Unreachable
from modelinscale.data.collect import Collected, collect
from modelinscale.data.contract import contract
from modelinscale.data.lake import open_table, table_exists
from modelinscale.data.sources import Source
from modelinscale.data.sources._net import check_address, refused

ROWS = "id,b\n" + "".join(f"{i},x{i}\n" for i in range(1000))


def gather(folder: Path, settings: dict[str, Any]) -> Collected:
    source = Source.parse(settings)
    schema = open_table(str(folder / "t")).read_schema if table_exists(str(folder / "t")) else source.columns()
    return collect(source, lake=str(folder / "t"), quarantine=str(folder / "q"), contract=contract(schema, {}, ()))


def ids(folder: Path) -> list[int]:
    return [i for batch in open_table(str(folder / "t")).blocks(["id"]) for i in batch.column(0).to_pylist()]


def csv(path: Path | str) -> dict[str, Any]:
    return {"type": "csv", "path": str(path)}


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Files: each is refused by name, and once it is mended its rows come once.

SHORTER = gzip.compress(ROWS.encode())
FILES: dict[str, tuple[str, bytes, str]] = {
    "a gzip with something behind it": ("f.csv.gz", SHORTER + b"garbage after it", "compressed data is damaged"),
    "a gzip cut short": ("f.csv.gz", SHORTER[:-20], "ends too early"),
    "a gzip whose checksum is wrong": ("f.csv.gz", SHORTER[:-8] + b"\0\0\0\0" + SHORTER[-4:], "damaged"),
    "nothing": ("f.csv", b"", "is empty"),
    "more columns than can be told apart": (
        "f.csv",
        b",".join(b"c%d" % i for i in range(100_000)) + b"\n",
        "more than 20,000 columns.*`separator`",
    ),
    "a first line without end": ("f.csv", b"id," + b"b" * (1 << 19), "first line is longer"),
    "an HTML page": ("f.csv", b"<!doctype html><html>sign in</html>", "HTML page"),
    "a Parquet file cut short": ("f.parquet", b"PAR1" + b"\0" * 100, "cannot be read as Parquet"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_told_and_its_rows_come_once_it_is_whole(name: str, tmp_path: Path) -> None:
    file, content, says = FILES[name]
    first = written(tmp_path / f"a{file}", SHORTER if file.endswith("gz") else ROWS)
    if file.endswith("parquet"):
        pq.write_table(pa.table({"id": range(1000), "b": [f"x{i}" for i in range(1000)]}), first)
    kind = "parquet" if file.endswith("parquet") else "csv"
    settings = {"type": kind, "path": str(tmp_path / f"*{file}")}
    gather(tmp_path, settings)
    broken = written(tmp_path / f"b{file}", content)
    if name != "nothing":
        with pytest.raises(SourceError, match=rf"(?s)b{file}.*{says}") as caught:
            gather(tmp_path, {**settings, "path": str(broken)} if "column" in says or "first" in says else settings)
        assert caught.value.fix
    assert ids(tmp_path) == list(range(1000))
    broken.write_bytes(first.read_bytes())
    assert gather(tmp_path, settings).n_added == 1000
    assert sorted(ids(tmp_path)) == sorted([*range(1000), *range(1000)])


def test_a_parquet_footer_that_lies_is_told(tmp_path: Path) -> None:
    file = tmp_path / "f.parquet"
    pq.write_table(pa.table({"id": list(range(1000))}), file)
    raw = file.read_bytes()
    for lie in (raw[:-8] + (2**31 - 1).to_bytes(4, "little") + b"PAR1", raw[:-8] + (5).to_bytes(4, "little") + b"PAR1", b"PAR1" + os.urandom(500) + raw[-8:]):
        file.write_bytes(lie)
        with pytest.raises(SourceError, match=r"f\.parquet cannot be read as Parquet"):
            gather(tmp_path, {"type": "parquet", "path": str(file)})
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("form", ["lines", "array"])
def test_json_nested_ten_thousand_deep_is_one_broken_row(form: str, tmp_path: Path) -> None:
    deep = '{"id": 5, "a": ' + "[" * 10_000 + "]" * 10_000 + "}"
    rows = [*(f'{{"id": {i}, "a": null}}' for i in range(3)), deep, '{"id": 3, "a": null}']
    file = written(tmp_path / "f.jsonl", "\n".join(rows) if form == "lines" else f"[{', '.join(rows)}]")
    found = gather(tmp_path, {"type": "jsonl", "path": str(file)})
    assert (ids(tmp_path), found.n_quarantined) == ([0, 1, 2, 3], 1)


def test_a_zero_byte_in_a_cell_costs_its_row(tmp_path: Path) -> None:
    found = gather(tmp_path, csv(written(tmp_path / "f.csv", ROWS.replace("x500\n", "x\x00500\n"))))
    assert (found.n_rows, found.reasons) == (999, (("b", "text with a NUL character", 1),))


@pytest.mark.parametrize("name", ["dätä – 数据.csv", "שלום‮.csv", "a b\tc.csv", "%2e%2e.csv", "'; drop table t.csv"])
def test_a_file_may_be_called_anything_that_is_text(name: str, tmp_path: Path) -> None:
    written(tmp_path / name, ROWS)
    assert gather(tmp_path, csv(tmp_path / "*.csv")).n_rows == 1000
    assert gather(tmp_path, csv(tmp_path / "*.csv")).n_added == 0


def test_a_file_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    with open(bytes(tmp_path) + b"/\xff\xfe.csv", "w") as file:  # noqa: PTH123  a Path takes no bytes
        file.write(ROWS)
    with pytest.raises(SourceError, match=r"udcff.*is no text.*Rename the file"):
        gather(tmp_path, csv(tmp_path / "*.csv"))


def test_links_in_a_circle_double_no_row(tmp_path: Path) -> None:
    inner = tmp_path / "data" / "2026"
    inner.mkdir(parents=True)
    written(inner / "f.csv", ROWS)
    (inner / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "loop.csv").symlink_to(tmp_path / "data" / "loop.csv")
    assert gather(tmp_path, csv(tmp_path / "data" / "**" / "*.csv")).n_rows == 1000


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere")
    for name in ("pipe.csv", "gone.csv"):
        with pytest.raises(SourceError, match=f"there is no file .*{name}"):
            gather(tmp_path, csv(tmp_path / name))


def test_a_clock_that_goes_backwards_loses_and_doubles_nothing(tmp_path: Path) -> None:
    file = written(tmp_path / "f.csv", ROWS)
    os.utime(file, (4e9, 4e9))  # in the year 2096
    gather(tmp_path, csv(file))
    with file.open("a") as more:
        more.write("1000,x1000\n")
    os.utime(file, (1e9, 1e9))
    assert gather(tmp_path, csv(file)).n_added == 1
    os.utime(file, (5e8, 5e8))
    assert gather(tmp_path, csv(file)).n_added == 0
    assert ids(tmp_path) == list(range(1001))


@pytest.mark.parametrize("how", ["shorter", "other of the same length", "cut in the middle of a line"])
def test_a_file_put_in_the_place_of_one_that_was_read_is_told_and_the_old_one_goes_on(how: str, tmp_path: Path) -> None:
    file = written(tmp_path / "f.csv", ROWS)
    gather(tmp_path, csv(file))
    other = {"shorter": "id,b\n1,x\n", "other of the same length": ROWS.replace("x500", "y500"), "cut in the middle of a line": ROWS[:-3]}
    file.write_text(other[how])
    with pytest.raises(SourceError, match=r"f\.csv (shrank|changed within).*replaced on purpose"):
        gather(tmp_path, csv(file))
    file.write_text(ROWS + "1000,x\n")
    assert gather(tmp_path, csv(file)).n_added == 1
    assert ids(tmp_path) == list(range(1001))


def test_a_file_that_may_not_be_read_is_told_and_read_once_it_may(tmp_path: Path) -> None:
    file = written(tmp_path / "f.csv", ROWS)
    file.chmod(0)
    code = f"""
import os
from pathlib import Path
if os.getuid() == 0: os.setuid(65534)
from modelinscale.data.sources import Source
try: Source.parse({{"type": "csv", "path": {str(file)!r}}}).columns()
except Exception as error: print(type(error).__name__, error)
"""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
        if folder.name.startswith("pytest-of"):
            break
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in said.stderr:
        pytest.skip("another user cannot import the program here")
    assert "SourceError" in said.stdout, said.stdout + said.stderr
    assert "Permission denied" in said.stdout
    file.chmod(0o644)
    assert gather(tmp_path, csv(file)).n_rows == 1000


@pytest.mark.slow
def test_a_limit_on_file_sizes_stops_it_whole_and_it_goes_on_without(tmp_path: Path) -> None:
    rows = "id,b\n" + "".join(f"{i},{i * 7919 % 99991:060d}\n" for i in range(60_000))
    file = written(tmp_path / "f.csv", rows)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import signal, resource
from pathlib import Path
from test_bad_sources import csv, gather
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
gather(Path({str(tmp_path)!r}), csv({str(file)!r}))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert said.returncode != 0
    assert "StoreError" in said.stderr, said.stderr
    assert "ulimit -f" in said.stderr
    gather(tmp_path, csv(file))
    assert ids(tmp_path) == list(range(60_000))


@pytest.mark.slow
def test_a_line_of_a_gigabyte_is_told_and_takes_no_gigabyte(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    with file.open("wb") as out:
        out.write(b"id,b\n1,x\n2,")
        for _ in range(1024):
            out.write(b"y" * (1 << 20))
        out.write(b"\n3,z\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match=r"f\.csv.*line"):
        gather(tmp_path, csv(file))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10, "KiB"
    file.write_text(ROWS)
    assert gather(tmp_path, csv(file)).n_rows == 1000


# Tables.


def test_a_delta_table_whose_log_lacks_a_file_is_told_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    at = str(tmp_path / "delta")
    for i in range(3):
        deltalake.write_deltalake(at, pa.table({"id": [2 * i, 2 * i + 1]}), mode="append")
    settings = {"type": "delta", "path": at}
    assert gather(tmp_path, settings).n_rows == 6
    for i in range(3, 5):
        deltalake.write_deltalake(at, pa.table({"id": [2 * i, 2 * i + 1]}), mode="append")
    log = Path(at) / "_delta_log" / f"{3:020d}.json"
    content = log.read_bytes()
    log.unlink()
    with pytest.raises(SourceError) as caught:
        gather(tmp_path, settings)
    assert at in str(caught.value)
    assert caught.value.fix
    assert sorted(ids(tmp_path)) == list(range(6))
    log.write_bytes(content)
    assert gather(tmp_path, settings).n_added == 4
    part = next(p for p in Path(at).glob("*.parquet"))
    assert part.exists()


def test_a_delta_table_whose_rows_are_gone_is_told(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    at = str(tmp_path / "delta")
    deltalake.write_deltalake(at, pa.table({"id": [0, 1]}))
    part = next(Path(at).glob("*.parquet"))
    hidden = part.rename(tmp_path / "hidden")
    with pytest.raises(SourceError, match=r"(?s)delta") as caught:
        gather(tmp_path, {"type": "delta", "path": at})
    assert caught.value.fix
    hidden.rename(part)
    assert gather(tmp_path, {"type": "delta", "path": at}).n_rows == 2


# Servers.


class Server(ThreadingHTTPServer):
    """Answers as the test says."""

    def __init__(self, answer: Callable[["Handler"], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.asked = answer, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/rows"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked += 1
        self.server.answer(self)

    def says(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


@contextmanager
def serving(answer: Callable[[Handler], None]) -> Iterator[Server]:
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def web(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "http", "url": url, "private": True, "rate": "1000/s", "retries": 1, "timeout": "2s", **more}


def cut_chunk(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'400\r\n[{"id": 1}, {"id"')
    handler.close_connection = True


def never_ends(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    try:
        for _ in range(1 << 20):
            handler.wfile.write(b'{"id": 1},' * 10_000)
    except OSError:
        return


def says(status: int, body: bytes, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.says(status, body, **headers)


ANSWERS: dict[str, tuple[Callable[[Handler], None], str]] = {
    "a chunk cut in the middle": (cut_chunk, "content|broke"),
    "a body without end": (never_ends, "larger than"),
    "429 for ever": (says(429, b"slow down", Retry_After="0"), "answers 429.*lower `rate`"),
    "503 for ever": (says(503, b""), "answers 503"),
    "a pause of a year": (says(429, b"", Retry_After="31536000"), "asks for a pause"),
    "a pause that is no number": (says(429, b"", Retry_After="soon"), "answers 429"),
    "a length below nothing": (says(200, b"[]", Content_Length="-5"), "no rows"),
    "a redirect to cloud metadata": (says(302, b"", Location="http://169.254.169.254/latest/meta-data"), "169.254.169.254, a link-local"),
    "a redirect to metadata in decimal": (says(302, b"", Location="http://2852039166/"), "169.254.169.254, a link-local"),
    "a redirect to metadata in hex": (says(302, b"", Location="http://0xa9fea9fe/"), "169.254.169.254, a link-local"),
    "a redirect to metadata as IPv6": (says(302, b"", Location="http://[::ffff:169.254.169.254]/"), "a link-local"),
    "a redirect to a file": (says(302, b"", Location="file:///etc/passwd"), "no address of a web server"),
    "a redirect to another scheme": (says(302, b"", Location="gopher://x/"), "no address of a web server"),
    "a redirect to itself": (lambda h: h.says(302, b"", Location=h.path), "more than 5 redirects"),
    "JSON nested ten thousand deep": (says(200, b'[{"id": ' + b"[" * 10_000 + b"]" * 10_000 + b"}]"), "not JSON"),
    "half of a JSON": (says(200, b'[{"id": 1}, {"id"'), "JSON"),
    "an error in HTML with status 200": (says(200, b"<html>maintenance</html>"), "JSON"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_answers_badly_is_told_and_its_rows_come_once_it_is_well(name: str, tmp_path: Path) -> None:
    bad, words = ANSWERS[name]
    is_well = False

    def answer(handler: Handler) -> None:
        handler.says(200, b'[{"id": 1}, {"id": 2}]') if is_well else bad(handler)

    with serving(answer) as server:
        settings = web(server.url, max_bytes="1MiB", columns={"id": "int"})
        with pytest.raises(MisError, match=f"(?s){words}") as caught:
            gather(tmp_path, settings)
        assert caught.value.fix
        is_well = True
        assert gather(tmp_path, settings).n_rows == 2
        assert ids(tmp_path) == [1, 2]


def test_pages_without_end_are_bounded_by_their_circle(tmp_path: Path) -> None:
    with serving(lambda h: h.says(200, b'{"rows": [{"id": 1}], "next": "again"}')) as server:
        settings = web(server.url, rows="rows", page={"type": "cursor", "param": "c", "next": "next"}, columns={"id": "int"})
        with pytest.raises(SourceError, match=r"read before|again"):
            gather(tmp_path, settings)
        assert server.asked < 10


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unreachable, match=r"cannot be reached|timed out"):
        gather(tmp_path, web(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout="0.3s", retries=0))


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "[::ffff:a9fe:a9fe]", "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fe80::1]", "[fd00:ec2::254]", "[::]", "0.0.0.0", "0", "224.0.0.1", "255.255.255.255", "[::a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]", "[::ffff:0:a9fe:a9fe]", "169.254.169.254.",
    ],
)  # fmt: skip
def test_metadata_is_never_read_however_its_address_is_written(host: str) -> None:
    with pytest.raises(SourceError):
        check_address(f"http://{host}/latest/meta-data", private=True)


def test_a_name_that_changes_its_address_leads_nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = iter([["93.184.216.34"], ["169.254.169.254"]])
    real = socket.getaddrinfo

    def rebinding(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        return real(next(answers, ["169.254.169.254"])[0], port, *args, **kwargs) if host == "rebind.example" else real(host, port, *args, **kwargs)

    reached: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *args: Any, **kwargs: Any) -> socket.socket:
        reached.append(address)
        raise OSError("no")

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(SourceError):
        gather(tmp_path, {**web("http://rebind.example/"), "private": False, "retries": 3})
    assert {address for address, _ in reached} <= {"93.184.216.34"}


def test_what_may_not_be_connected_to_is_told_in_a_word() -> None:
    assert refused("::a9fe:a9fe", private=True)
    assert refused("64:ff9b:1::a9fe:a9fe", private=True)
    assert refused("8.8.8.8") is None
