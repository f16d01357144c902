"""A project whose store is a bucket: from rows to answers, on one machine and on a second one that finds everything done."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelinscale.api import Project
from modelinscale.core.errors import LakeError, StoreError, UsageError
from modelinscale.data.lake import open_table
from modelinscale.store.s3 import S3
from modelinscale.testing.s3 import Server, s3_server

SECRET = "hush-hush-key"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("KEY_FOR_TESTS", SECRET)
    with s3_server() as found:
        yield found


def write_rows(path: Path, start: int, end: int) -> None:
    path.write_text("id,a,b,y\n" + "".join(f"{i},{i % 7},{'uvw'[i % 3]},{'yes' if (i % 7) > 3 else 'no'}\n" for i in range(start, end)), encoding="utf-8")


def project(server: Server, folder: Path, rows: Path, data: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.yaml").write_text(
        f"name: shop\ntarget: y\nmodel: {{type: linear}}\ndata:\n  source: {rows}\n  leave_out: [id]\n{data}"
        f"store: {{type: s3, bucket: bkt, prefix: team/shop, endpoint: '{server.options['aws_endpoint']}', region: us-east-1, lease: 4s,"
        " access_key: '${ENV:KEY_FOR_TESTS}', secret_key: '${ENV:KEY_FOR_TESTS}'}\n",
        encoding="utf-8",
    )
    return folder


def test_two_machines_share_one_project(server: Server, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    write_rows(rows, 0, 600)
    one, two = Project(project(server, tmp_path / "one", rows)), Project(project(server, tmp_path / "two", rows))
    first = one.run()
    assert [s.fresh for s in first.steps] == [True] * len(first.steps)
    assert not [s for s in Project(one.base).run().steps if s.fresh], "the same machine finds everything done"
    assert not [s for s in two.run().steps if s.fresh], "the second machine finds everything done"
    row = {"a": 6, "b": "u"}
    assert two.package().predict([row]) == one.package().predict([row])
    write_rows(rows, 0, 700)
    assert Project(two.base).run().steps[0].facts["n_added"] == 100
    assert Project(one.base).package_folder().is_dir()
    assert not [s for s in Project(one.base).run().steps if s.fresh]
    for content in server.objects.held.values():
        assert SECRET.encode() not in content
    for path in (p for folder in (one.base, two.base) for p in folder.rglob("*") if p.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path
    verdict = Project(one.base).verify_audit()
    assert (verdict.broken_line, verdict.missing_anchors, verdict.torn_bytes) == (None, (), 0)
