"""The page to try a model on: one file, nothing loaded from elsewhere."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from modelinscale import __version__
from modelinscale.package._cell_rules import describe
from modelinscale.serve._message import HTML, Reply
from modelinscale.serve._oip_form import datatype_of, version_of

if TYPE_CHECKING:
    from modelinscale.package import Package

MAX_EXAMPLES = 20
"""Golden rows the page can be filled with."""
MAX_CHARS, MAX_IMAGE_CHARS = 200, 20_000
"""Longest text the page is filled with."""


def page(packages: Mapping[str, "Package"], examples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Reply:
    """The page, ready to send. All that comes from packages enters as JSON data and is shown as text, never as markup."""
    facts = {"library": __version__, "models": [_facts(name, package, examples.get(name, ())) for name, package in packages.items()]}
    data = json.dumps(facts, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    template = files("modelinscale.serve").joinpath("page.html").read_text(encoding="utf-8")
    # The one script may run because its hash is in the policy; a script that got in some other way may not.
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = f"content-security-policy: {policy}\r\nx-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\n"
    return Reply(200, template.replace("{{data}}", data).encode(), HTML, headers.encode())


def _facts(name: str, package: "Package", rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    manifest = package.manifest
    columns = [
        {
            "name": c.name,
            "type": c.accepts.type,
            "words": describe(c.accepts),
            "datatype": datatype_of(c),
            "required": c.required,
        }
        for c in manifest.inputs
    ]
    most = {c.name: MAX_IMAGE_CHARS if c.input == "image" else MAX_CHARS for c in manifest.inputs}
    short = [row for row in rows if not any(isinstance(v, str) and len(v) > most.get(name, MAX_CHARS) for name, v in row.items())]
    usable = [{c.name: row.get(c.name) for c in manifest.inputs} for row in short]
    return {
        "name": name,
        "version": version_of(package),
        "family": manifest.family,
        "task": manifest.task.type,
        "target": manifest.task.target,
        "created": manifest.created,
        "labels": list(package.label_keys),
        "columns": columns,
        "examples": _fullest_first(usable)[:MAX_EXAMPLES],
    }


def _fullest_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows with the fewest missing cells first, otherwise in their order: golden rows hold oddities on purpose, a first look should not."""
    return sorted(rows, key=lambda row: sum(v is None or v == "" for v in row.values()))
