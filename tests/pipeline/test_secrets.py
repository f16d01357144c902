"""Secrets in errors: whatever goes wrong, and however it is told, no value of a secret comes out. To add a case, add a line to `CASES`."""

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from modelinscale.cli import main
from modelinscale.core import secrets
from modelinscale.core.errors import SourceError
from modelinscale.testing.traces import traces
from modelinscale.track.lineage import OpenLineage

SECRET = 'hunter2/"w@rd\\%41 ö'
PLAIN = "hunter2-written-down"
"""As somebody would write it into the file by mistake."""
PARTS = (SECRET, PLAIN, "hunter2", "w%40rd", "w@rd\\\\")
ROWS = "x,shop,y\n" + "".join(f"{i * 7 % 23},{'abc'[i % 3]},{'yes' if (i * 7 % 23) + i % 5 > 12 else 'no'}\n" for i in range(300))
GOOD = "name: shop\ndata: {source: rows.csv}\ntarget: y\nfeatures: {x: number, shop: category}\nmodel: linear\n"


@dataclass(frozen=True)
class Case:
    """A way to go wrong (or not): a model.yaml, the command, and how to prepare."""

    name: str
    file: str = GOOD
    words: tuple[str, ...] = ("run",)
    code: int | None = 2
    """The exit code expected; None: any."""
    says: str = ""
    """What must be said."""
    needs: tuple[str, ...] = ()
    """Modules without which the case cannot happen."""
    prepare: Callable[[Path, pytest.MonkeyPatch], None] = field(default=lambda place, patch: None)


def lineage(text: str) -> str:
    return GOOD + f"lineage: {text}\n"


def source(text: str) -> str:
    return GOOD.replace("source: rows.csv", f"source: {text}")


def data(text: str) -> str:
    return GOOD.replace("source: rows.csv", f"source: rows.csv, {text}")


def _crash(error: Callable[[], BaseException]) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """The source breaks in a way that nobody foresaw, its words holding the secret, which was revealed before."""

    def prepare(place: Path, patch: pytest.MonkeyPatch) -> None:
        def read(*args: Any, **kwargs: Any) -> Any:
            secrets.reveal("${ENV:PW}")
            raise error()

        patch.setattr("modelinscale.data.sources.csv.Csv.read", read)

    return prepare


def _chained() -> BaseException:
    error = SourceError(f"the database says no to {SECRET}.", fix=f"Not {SECRET}.")
    error.__cause__ = RuntimeError(f"password {SECRET!r} refused")
    return error


def _file(content: bytes | None) -> Callable[[Path, pytest.MonkeyPatch], None]:
    def prepare(place: Path, patch: pytest.MonkeyPatch) -> None:
        (place / "pw").mkdir() if content is None else (place / "pw").write_bytes(content)

    return prepare


NOBODY = "127.0.0.1:9"
CASES = [
    # Written down where only a reference may stand.
    Case("a password in an address", lineage(f"{{url: 'https://u:{PLAIN}@h'}}"), says="must not hold a password"),
    Case("a token in the file", lineage(f"{{url: 'https://h', token: {PLAIN}}}"), says="must not be written here"),
    Case("a token with a reference behind it", lineage(f"{{url: 'https://h', token: '{PLAIN}${{ENV:PW}}'}}"), says="must not be written here"),
    Case("a token in a mapping", lineage(f"{{url: 'https://h', token: {{value: {PLAIN}}}}}"), says="lineage.token"),
    Case("a token in a list", lineage(f"{{url: 'https://h', token: [{PLAIN}]}}"), says="lineage.token"),
    Case("an address in a list", lineage(f"{{url: ['https://u:{PLAIN}@h']}}"), says="lineage.url"),
    Case("an address where settings should be", lineage(f"'https://u:{PLAIN}@h'"), says="lineage"),
    Case("a password under an unknown name", lineage(f"{{url: 'https://h', password: {PLAIN}}}"), says="unknown key"),
    Case("a slip of the pen in a name", lineage(f"{{url: 'https://h', tokn: {PLAIN}}}"), says="Did you mean 'token'"),
    Case("a key of pseudonyms", data(f"personal: {{shop: pseudonym}}, pseudonym_key: {PLAIN}"), says="must not be written here"),
    Case("a key of pseudonyms among references", data(f"personal: {{}}, pseudonym_key: ['${{ENV:PW}}', {PLAIN}]"), says="must not be written here"),
    Case("a key of pseudonyms in a mapping", data(f"personal: {{}}, pseudonym_key: {{key: {PLAIN}}}"), says="pseudonym_key"),
    Case("a password of a database", source(f"{{type: sql, url: 'postgresql://mis:{PLAIN}@db/shop', table: t}}"), says="must not hold a password"),
    Case("an address that cannot be read", source(f"{{type: sql, url: 'postgresql://mis:{PLAIN}@[db/shop', table: t}}"), says="cannot be read"),
    Case("a database as a file's name", source(f"'postgresql://mis:{PLAIN}@db/shop'"), code=None),
    Case("databases as a list of files", source(f"['postgresql://mis:{PLAIN}@db/shop', rows.csv]"), code=None),
    Case("a store with a password", GOOD + f"store: 's3://id:{PLAIN}@bucket'\n", code=None),
    Case("a cluster's address with a password", GOOD + f"compute: ['ray://u:{PLAIN}@h']\n"),
    Case("a reference of an unknown kind", lineage("{url: 'https://h', token: '${VAULT:pw}'}"), says="no reference"),
    # Mistakes of form beside a secret.
    Case("a quote not closed", GOOD + f'lineage: {{url: "https://u:{PLAIN}@h\n', says="not YAML"),
    Case("a tab before a secret", GOOD + f"lineage:\n\ttoken: {PLAIN}\n", says="not YAML"),
    Case("a secret given twice", GOOD + f"lineage:\n  token: {PLAIN}\n  token: {PLAIN}2\n", says="already given"),
    Case("a tag on a secret", GOOD + f"lineage: {{token: !vault {PLAIN}}}\n", says="not allowed here"),
    # References whose secret is not there.
    Case("a variable that is not set", data("personal: {shop: pseudonym}, pseudonym_key: '${ENV:NOT_SET}'"), says="'NOT_SET' is not set"),
    Case("one of two variables not set", data("personal: {shop: pseudonym}, pseudonym_key: ['${ENV:PW}', '${ENV:NOT_SET}']"), says="'NOT_SET' is not set"),
    Case("a file that is not there", data("personal: {shop: pseudonym}, pseudonym_key: '${FILE:pw}'"), says="cannot be read"),
    Case("a file that is a folder", data("personal: {shop: pseudonym}, pseudonym_key: '${FILE:pw}'"), says="cannot be read", prepare=_file(None)),
    Case("a file that is no text", data("personal: {shop: pseudonym}, pseudonym_key: '${FILE:pw}'"), says="no text", prepare=_file(b"hunter2\xff\xfe")),
    Case("a key too short", data("personal: {shop: pseudonym}, pseudonym_key: '${FILE:pw}'"), says="could be guessed", prepare=_file(b"hunter2")),
    Case("checked", data("personal: {shop: pseudonym}, pseudonym_key: '${ENV:NOT_SET}'"), words=("check", "--json"), says="NOT_SET"),
    # Errors that nobody foresaw, told in every way.
    Case("a crash", code=1, says="RuntimeError", prepare=_crash(lambda: RuntimeError(f"refused: {SECRET}"))),
    Case("a crash as JSON", words=("run", "--json"), code=1, says="RuntimeError", prepare=_crash(lambda: RuntimeError(f"refused: {SECRET}"))),
    Case("a crash at debug", words=("--log", "debug", "run"), code=1, says="refused", prepare=_crash(lambda: RuntimeError(f"refused: {SECRET}"))),
    Case(
        "a crash at debug in JSON",
        words=("--log", "debug", "--log-form", "json", "run"),
        code=1,
        says="refused",
        prepare=_crash(lambda: RuntimeError(f"refused: {SECRET}")),
    ),
    Case("a crash by a key", words=("--log", "debug", "run"), code=1, says="KeyError", prepare=_crash(lambda: KeyError(SECRET))),
    Case("a chained error", words=("--log", "debug", "run"), code=1, says="the database says no to \\*\\*\\*", prepare=_crash(_chained)),
    Case("a chained error as JSON", words=("run", "--json"), code=1, says="says no", prepare=_crash(_chained)),
    Case("a wrong plan", words=("plan", "--json"), code=0),
    # Servers that are not there, or refuse; their drivers' words hold the address.
    Case("PostgreSQL", source(f"{{type: sql, url: 'postgresql://mis:${{ENV:PW}}@{NOBODY}/shop', table: t}}"), code=1, needs=("adbc_driver_postgresql",)),
    Case("MariaDB", source(f"{{type: sql, url: 'mysql://mis:${{ENV:PW}}@{NOBODY}/shop', table: t}}"), code=None, needs=("asyncmy",)),
    Case("SQLite", source("{type: sql, url: 'sqlite:///${ENV:PW}/x.db', table: t}"), code=None, needs=("adbc_driver_sqlite",)),
    Case("Redis", source(f"{{type: redis, url: 'redis://:${{ENV:PW}}@{NOBODY}/0', stream: s}}"), code=1, needs=("redis",)),
    Case(
        "a collector of lineage",
        lineage(f"{{url: 'http://u:${{ENV:PW}}@{NOBODY}', tries: 1}}"),
        words=("--log", "debug", "collect"),
        code=0,
        says="wait in the store",
    ),
    Case("a command line", words=("predict", f"postgresql://mis:{PLAIN}@db/rows", "--out", "o.csv"), code=None),
    Case("a first look", words=("init", f"https://u:{PLAIN}@h/rows.csv", "--target", "y", "--out", "other.yaml"), code=None),
]


@pytest.fixture(autouse=True)
def _apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each case begins as a fresh process would: nothing was revealed yet."""
    monkeypatch.setattr(secrets, "_revealed", {})
    monkeypatch.setenv("PW", SECRET)
    logger, last, hook = logging.getLogger("modelinscale"), logging.lastResort, threading.excepthook
    before = (logger.handlers[:], logger.level, logger.propagate, last.formatter if last else None)
    yield
    logger.handlers[:], logger.level, logger.propagate = before[0], before[1], before[2]
    if last:
        last.setFormatter(before[3])
    threading.excepthook = hook


def said(place: Path, words: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and everything said by a command."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["mis", *words])
    with pytest.raises(SystemExit) as leaving:
        main()
    out, err = capfd.readouterr()
    return int(leaving.value.code or 0), out + err


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_secret_is_in_nothing_that_is_said_or_kept(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [name for name in case.needs if find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "model.yaml").write_text(case.file)
    case.prepare(tmp_path, monkeypatch)
    code, text = said(tmp_path, case.words, capfd, monkeypatch)
    found = [part for part in PARTS if part in text]
    assert not found, f"{found} in:\n{text}"
    assert case.code is None or code == case.code, text
    assert case.says.replace("\\*", "*") in text, text
    if (tmp_path / ".mis").exists():
        assert traces(tmp_path / ".mis", PARTS) == []


def test_there_are_enough_ways_to_go_wrong() -> None:
    assert len(CASES) >= 30
    assert len({case.name for case in CASES}) == len(CASES)


def test_pydantic_repeats_nothing_to_users_of_the_classes() -> None:
    with pytest.raises(ValueError, match="must not be written here") as caught:
        OpenLineage(url="https://h", token=PLAIN)
    assert PLAIN not in str(caught.value)


class _Echo(BaseHTTPRequestHandler):
    """A collector that refuses and repeats what it was sent in its answer and its headers."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = f"no: {self.headers['Authorization']}".encode("latin-1", "replace")
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing is printed."""


@pytest.mark.slow
def test_a_whole_run_with_secrets_in_use_keeps_none_of_them(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-token-of-the-collector")
    monkeypatch.setenv("MIS_KEY", "hunter2-key-of-pseudonyms")
    (tmp_path / "rows.csv").write_text(ROWS)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        personal = data("personal: {shop: pseudonym}, pseudonym_key: '${ENV:MIS_KEY}'")
        url = f"http://127.0.0.1:{server.server_address[1]}"
        (tmp_path / "model.yaml").write_text(personal + f"lineage: {{url: '{url}', token: '${{ENV:TOKEN}}', tries: 1}}\n")
        texts = [
            said(tmp_path, words, capfd, monkeypatch)
            for words in (("--log", "debug", "run", "--json"), ("show", "lake", "--json"), ("show", "card"), ("audit",))
        ]
        server.shutdown()
        thread.join()
    assert [code for code, _ in texts] == [0, 0, 0, 0], texts
    assert not any("hunter2" in text for _, text in texts)
    assert traces(tmp_path / ".mis", ["hunter2"]) == []
    assert json.loads((tmp_path / ".mis" / "lineage" / "waiting.jsonl").read_text().splitlines()[0])["eventType"] == "START"
    assert os.environ["TOKEN"].startswith("hunter2")
