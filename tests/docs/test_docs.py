"""What README, docs and examples say is true: commands exist with these options, YAML parses, links lead somewhere, the reference is up to date."""

import importlib.util
import re
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from modelinscale.cli._app import app
from modelinscale.spec import ModelSpec, loads

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("benchmarks/*.md")])
EXAMPLES = sorted(ROOT.glob("examples/*/model.yaml"))


def names(paths: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in paths]


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """Every ``mis`` and ``make`` command: whole lines of shell blocks (after ``$ `` in captured ones), and code within sentences."""
    lines = [line.removeprefix("$ ") for text in blocks(page, "sh") for line in text.splitlines()]
    lines += [line[2:] for text in blocks(page, "console") for line in text.splitlines() if line.startswith("$ ")]
    lines += re.findall(r"(?<!`)`((?:mis|make) [^`]+)`", re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL))
    parts = [part.split(" #")[0].strip() for line in lines for part in re.split(r"&&|\||;|>", line)]
    return [part for part in parts if part.startswith(("mis ", "make "))]


def test_there_are_pages() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/tutorial.md", "docs/concepts.md"} <= set(names(PAGES))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_commands_on_a_page_exist_with_their_options(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for command in commands(page):
        program, *words = shlex.split(command)
        if program == "make":
            assert set(words) <= targets, f"{page.name}: `{command}`"
            continue
        if words[0].startswith("-"):
            group.make_context("mis", words, resilient_parsing=True)
            continue
        assert words[0] in group.commands, f"{page.name}: `{command}`: no such command"
        known = group.commands[words[0]]
        while len(words) > 1 and words[1] in getattr(known, "commands", ()):
            known, words = known.commands[words[1]], words[1:]
        options = {o for p in known.params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        used = {w.split("=")[0] for w in words[1:] if w.startswith("-") and not re.fullmatch(r"-\d+", w)}
        assert used <= options, f"{page.name}: `{command}`: {used - options} not among {sorted(options)}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_yaml_on_a_page_is_a_model_yaml_or_a_part_of_one(page: Path) -> None:
    for text in blocks(page, "yaml"):
        found = yaml.safe_load(text)
        assert isinstance(found, dict), text
        assert set(found) <= set(ModelSpec.model_fields), f"{page.name}: {set(found) - set(ModelSpec.model_fields)}"
        whole = {"target": "y", **found, "data": {"source": "rows.csv", **found.get("data", {})}}
        loads(yaml.safe_dump(whole, allow_unicode=True), page.name)


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_on_a_page_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_python_on_a_page_compiles(page: Path) -> None:
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")


@pytest.mark.parametrize("file", EXAMPLES, ids=names(EXAMPLES))
def test_an_example_is_a_model_yaml_and_is_listed(file: Path) -> None:
    spec = loads(file.read_text(encoding="utf-8"), str(file))
    assert spec.name == file.parent.name
    assert f"{file.parent.name}/model.yaml" in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


def test_the_demo_in_the_package_is_the_fraud_example() -> None:
    assert (files("modelinscale") / "demo.yaml").read_text(encoding="utf-8") == (ROOT / "examples/fraud/model.yaml").read_text(encoding="utf-8")


def test_the_churn_rows_are_what_their_script_makes() -> None:
    place = importlib.util.spec_from_file_location("make_churn", ROOT / "examples/churn/make.py")
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    assert module.customers() == (ROOT / "examples/churn/customers.csv").read_text(encoding="utf-8")


def test_every_kind_folder_has_its_line_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for package in sorted(p.parent.name for p in (ROOT / "src/modelinscale").glob("*/__init__.py")):
        assert f"`{package}`" in text, package


@pytest.mark.slow  # `make check` asks the same by itself
def test_the_reference_says_what_the_classes_say() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs/reference.py"), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=names(EXAMPLES))
def test_an_example_runs(file: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / file.parent.name
    shutil.copytree(file.parent, folder, ignore=shutil.ignore_patterns(".mis"))
    if "type: simulator" in (text := file.read_text(encoding="utf-8")):  # smaller: the demo's test runs it all
        (folder / "model.yaml").write_text(text.replace("days: 120", "days: 70, customers: 500, fraud: 4"), encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "modelinscale.cli", "run", "-f", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "version 1 (champion)" in done.stdout
