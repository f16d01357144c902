"""Words for people (standard error for progress, standard output for results) or one JSON object. The only module that prints."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from modelinscale.core.errors import MisError, UsageError, did_you_mean
from modelinscale.core.units import show_bytes, show_seconds

if TYPE_CHECKING:
    from modelinscale.api import Checked, Drafted, Tuned
    from modelinscale.demo import Demo, Payment, Stage
    from modelinscale.pipeline import Described, Outcome, Plan
    from modelinscale.pipeline._deploy import Deployment
    from modelinscale.pipeline._explain import Told
    from modelinscale.pipeline._follow import Followed
    from modelinscale.pipeline._forget import Forgotten
    from modelinscale.pipeline._rotate import Rotated
    from modelinscale.pipeline._vacuum import Vacuum
    from modelinscale.score import Scored
    from modelinscale.serve import Serve
    from modelinscale.track.audit import Entry, Verdict
    from modelinscale.tune import Entry as Attempt

Progress = Callable[[str, float | None, str], None]
"""Called with the step, the share of it done (0 to 1; None: not known) and a few words."""
NEWS_S = 30.0
"""Where there is no terminal, long work says at most this often how far it is."""


def line(text: str = "") -> None:
    """A line of the result."""
    print(text, flush=True)


def aside(text: str) -> None:
    """A line about the way there, on standard error."""
    print(text, file=sys.stderr, flush=True)


def document(value: Any) -> None:
    """One JSON object."""
    line(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def text(name: str, value: str, *, as_json: bool) -> None:
    document({name: value}) if as_json else line(value)


def logs(level: str, form: str) -> None:
    """Sends logs to standard error as asked."""
    from modelinscale.core.logs import to_stderr

    levels, forms = ("debug", "info", "warning", "error"), ("text", "json")
    if level not in levels:
        raise UsageError(f"--log {level!r} is not known.{did_you_mean(level, levels)}", fix=f"Known: {', '.join(levels)}.")
    if form not in forms:
        raise UsageError(f"--log-form {form!r} is not known.{did_you_mean(form, forms)}", fix=f"Known: {', '.join(forms)}.")
    to_stderr(level, cast(Any, form))


def failed(error: MisError, *, as_json: bool) -> None:
    """An error of the user's: what, where, and what to do."""
    if as_json:
        document({"error": {"type": type(error).__name__, "message": error.message, "fix": error.fix}})
    aside(f"error: {error.message}" + (f"\n  {error.fix}" if error.fix else ""))


def crashed(error: Exception, *, as_json: bool) -> None:
    """An error that nobody foresaw. Where it happened is told; its words are not, unless asked for: another library's may hold cells of rows."""
    import traceback

    from modelinscale.core.logs import log
    from modelinscale.core.secrets import veil

    log("modelinscale.cli").debug("this was not foreseen", exc_info=error)
    steps = [f"{type(error).__name__}, raised in"] + [f"    {s.filename}:{s.lineno} ({s.name})" for s in traceback.extract_tb(error.__traceback__)[-6:]]
    message, fix = (
        "something happened that this program did not foresee: " + "\n".join(steps),
        "`mis --log debug ...` shows its words, which may hold values of rows.",
    )
    if as_json:
        document({"error": {"type": type(error).__name__, "message": veil(message), "fix": fix}})
    aside(veil(f"error: {message}\n  {fix}"))


def misused(error: BaseException, *, as_json: bool) -> int:
    """A command line that cannot be understood (typer's own refusal); returns the exit code."""
    context = getattr(error, "ctx", None)
    message = str(cast(Any, error).format_message())
    if type(error).__name__ == "NoArgsIsHelpError":  # `mis` alone asks for help, which is no mistake to be told of
        line(message)
    else:
        failed(UsageError(message, fix=f"See `{context.command_path} --help`." if context is not None else "See `mis --help`."), as_json=as_json)
    return UsageError.exit_code


def stopped() -> None:
    aside("stopped; what was committed and every step that is done are kept: run it again to go on.")


@contextmanager
def progress(*, quiet: bool) -> Iterator[Progress]:
    """What long work reports to: bars on a terminal, one line a step elsewhere, nothing when quiet."""
    if quiet:
        yield lambda step, share, note: None
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bars() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.fields[step]:<9}"), BarColumn(bar_width=28), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=False) as bars:
        tasks: dict[str, Any] = {}

        def report(step: str, share: float | None, note: str) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(note, total=1.0, step=step)
            bars.update(tasks[step], completed=share if share is not None else 0.0, description=note)

        yield report


def _lines(seconds: Callable[[], float] = monotonic) -> Progress:
    """A line for each step that is done and each family that begins to learn, and for long ones how far they are."""
    told_at, family = seconds(), ""

    def report(step: str, share: float | None, note: str) -> None:
        nonlocal told_at, family
        learning = note.partition(": ")[0] if step == "train" and share is not None and share < 1 else ""
        if learning != family or (share is not None and share >= 1) or seconds() - told_at >= NEWS_S:
            told_at, family = seconds(), learning
            aside(f"{step:<9} {note}")

    return report


Watch = Callable[["Sequence[Attempt]"], None]


@contextmanager
def tuning(*, quiet: bool) -> Iterator[tuple[Progress, Watch | None]]:
    """What a search reports to: on a terminal a table of its best trials that changes as they end, elsewhere a line now and then."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        with progress(quiet=quiet) as report:
            yield report, None
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        words = ""

        def report(step: str, share: float | None, note: str) -> None:
            nonlocal words
            words = f"{step}  {note}"
            if step != "tune":
                live.update(words)

        yield report, lambda entries: live.update(_trials(entries, words))


def _trials(entries: "Sequence[Attempt]", words: str, n_rows: int = 12) -> Any:
    """Those in work, then the best: first of all rows, then of parts of them."""
    from rich.table import Table

    names = list(dict.fromkeys(name for e in entries for name in e.point))
    shown = Table(title=words, title_justify="left", box=None, pad_edge=False)
    for name in ("trial", "rows", "loss", "s", *(name.partition(".")[2] or name for name in names)):
        shown.add_column(name, justify="right", no_wrap=True)
    running = [e for e in entries if e.state == "running"]
    done = sorted((e for e in entries if e.loss is not None), key=lambda e: (-e.share, e.loss))
    for e in [*running, *done][:n_rows]:
        loss = "…" if e.loss is None else f"{e.loss:.4g}"
        values = [(f"{v:.3g}" if isinstance(v, float) else str(v)) if (v := e.point.get(name)) is not None else "" for name in names]
        shown.add_row(str(e.number), f"{e.share:.0%}", loss, f"{e.seconds:.1f}", *values, style="dim" if e.state == "running" else None)
    return shown


def tuned(found: "Tuned", *, as_json: bool) -> None:
    facts = found.facts
    if as_json:
        document({**facts, "done_now": found.fresh})
        return
    if not found.fresh:
        line("nothing to do: the search is done. More trials: `mis tune --trials N`.")
    start = f" (where it began: {facts['start']:.4g})" if facts["start"] is not None else ""
    line(f"{facts['family']}, loss {facts['loss']:.4g} on validation rows{start}, the best of {facts['n_settings']:,} settings")
    important = facts["importance"]
    rows = [(name, _setting(value), f"{important[name]:.0%}" if name in important else "") for name, value in facts["settings"].items()]
    table(("setting", "best", "importance"), rows)
    for note in facts["notes"]:
        line(f"  · {note}")
    line(f"report: {facts['report']}")
    if found.in_file:
        line("next: mis run, which trains with these settings")
    else:
        chosen = ", ".join(f"{name}: {_setting(value)}" for name, value in facts["model"].items())
        line(f"next: write `tune: {{trials: {facts['n_settings']}}}` into the file, so that mis run trains with them, or `model: {{{chosen}}}`")


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "  ") -> None:
    """Columns of text, numbers to the right."""
    if not rows:
        return
    widths = [max(len(r[i]) for r in (header, *rows)) for i in range(len(header))]
    right = [all(r[i][:1].isdigit() or r[i][:1] in "-+≤" or not r[i] for r in rows) for i in range(len(header))]
    for row in (header, *rows):
        cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        line((indent + "  ".join(cells)).rstrip())


def drafted(found: "Drafted", *, as_json: bool) -> None:
    if as_json:
        document({"file": str(found.file), "notes": list(found.notes), "target": found.target, "task": found.task, "n_features": found.n_features})
        return
    line(f"wrote {found.file}: predict {found.target} ({found.task}) from {found.n_features} columns.")
    for note in found.notes:
        line(f"  · {note}")
    where = "" if found.file.name == "model.yaml" and found.file.parent == Path() else f" -f {found.file}"
    line(f"next: mis run{where}")


def checked(found: "Checked", file: Path, *, as_json: bool) -> None:
    if as_json:
        document({"columns": found.columns, "features": found.features, "left_out": found.left_out, "target": found.target, "notes": list(found.notes)})
        return
    table(("column", "type", "feature"), [(c["name"], c["type"], found.role(c["name"])) for c in found.columns])
    for note in found.notes:
        line(f"  · {note}")
    line(f"{file} is in order.")


def plan(found: "Plan", *, as_json: bool) -> None:
    if as_json:
        steps = [{"step": s.step, "identity": s.identity, "done": s.done, "why": s.why} for s in found.steps]
        search = None if found.search is None else found.search.plain()
        document({"steps": steps, "estimates": [one.plain() for one in found.estimates], "search": search})
        return
    for step in found.steps:
        line(f"  {'✓' if step.done else '•'} {step.step:<9} {step.why}")
    for one in found.estimates:
        line(f"  {'✗' if one.refusal else ' '} {one.of:<9} {one}")
    if found.search is not None:
        line(f"    {'search':<9} {found.search}")
    if all(s.done for s in found.steps):
        line("nothing to do.")
        return
    refused = [one for one in found.estimates if one.refusal]
    for one in refused:
        line(f"`mis run` would be refused: {one.refusal}\n  {one.fix}")
    if not refused:
        line("`mis run` does what is marked •.")


def outcome(found: "Outcome", *, as_json: bool, next_step: bool = True) -> None:
    if as_json:
        document(found.plain())
        return
    if not found.fresh:
        line("nothing to do: everything is up to date.")
    if found.collected:
        c = found.collected
        quarantined = f", {c['n_quarantined']:,} in quarantine (see `mis show quarantine`)" if c["n_quarantined"] else ""
        doubled = f", {c['n_dropped']:,} equal to earlier ones taken away (`dedupe`)" if c.get("n_dropped") else ""
        line(f"table version {c['version']}: {c['n_rows']:,} rows{doubled}{quarantined}")
    if found.metrics:
        _metrics(found)
    for note in found.notes:
        line(f"  · {note}")
    if found.report is not None:
        line(f"report: {found.report}")
    if found.version is not None:
        line(f"{found.name} version {found.version} ({', '.join(found.aliases) or 'no alias'}): {found.package}")
        if next_step and found.no_better:
            line("next: more rows or other features, then mis run again; as it is, nobody gains from mis serve")
        elif next_step:
            line("next: mis serve" if "champion" in found.aliases else f"next: mis promote {found.version}, to serve it instead of the champion")


@contextmanager
def following(*, quiet: bool, as_json: bool) -> "Iterator[Callable[[Followed], None]]":
    """What a follower reports to: one JSON object a line for every piece of news, or a line (on a terminal: one that changes) of words."""
    if as_json:
        yield lambda found: line(json.dumps(found.plain(), ensure_ascii=False))
    elif quiet:
        yield lambda found: None
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bars() as report:
            yield lambda found: report("collect", None, found.words)
    else:
        yield lambda found: aside(f"{'collect':<9} {found.words}")


def followed(found: "Followed", *, as_json: bool) -> None:
    """How a follower ended."""
    if as_json:
        line(json.dumps(found.plain(), ensure_ascii=False))
        return
    quarantined = f", {found.n_quarantined:,} to quarantine" if found.n_quarantined else ""
    version = f"table version {found.version}: {found.n_rows:,} rows" if found.version is not None else "no table yet"
    line(f"stopped; {found.n_added:,} rows came{quarantined}; {version}")


def deployed(found: "Deployment", *, as_json: bool) -> None:
    if as_json:
        document(found.plain())
        return
    for name, content in found.files.items():
        if found.out is not None:
            line(f"wrote {found.out / name}")
        elif found.said is None:
            line(f"# {name}\n{content}")
    if found.said is not None:
        line(f"{found.said}.")
    for note in found.notes:
        line(f"  · {note}")


def vacuumed(found: "Vacuum", *, as_json: bool) -> None:
    if as_json:
        document(found.plain())
        return
    if not found.tables:
        line("no table yet: nothing to remove.")
    for one in found.tables:
        done = "would be removed" if found.dry_run else "removed"
        line(f"{one.name}: {len(one.removed):,} versions {done}, {show_bytes(one.bytes_freed)}; {len(one.kept):,} kept")
        reasons = Counter(one.kept.values())
        table(
            ("kept", "because"),
            [(f"{n:,} versions" if n > 1 else f"version {next(v for v in one.kept if one.kept[v] == why)}", why) for why, n in reasons.items()],
        )


def _metrics(found: "Outcome") -> None:
    baselines = [name for name in found.baselines if name != found.family]
    header = ("on test rows", found.family or "model", "", *baselines)
    rows = []
    for name, m in found.metrics.items():
        others = [_number(found.baselines[b].get(name, {}).get("value")) for b in baselines]
        interval = f"{_number(m.get('low'))} to {_number(m.get('high'))}" if m.get("low") is not None else ""
        rows.append((name, _number(m.get("value")), interval, *others))
    table(header, rows)


def explained(found: "Told", *, as_json: bool) -> None:
    """What was explained, and whether it stood its checks."""
    if as_json:
        document(found.plain())
        return
    one = found.explanation
    line(f"{one.model}, explained by {one.by} over {one.n_rows:,} rows")
    if one.importance:
        shown = one.importance[:20]
        table(("column", one.unit, "interval"), [(e.feature, _number(e.value), f"{_number(e.low)} to {_number(e.high)}") for e in shown])
    for row in one.rows[:10]:
        top = sorted(row.effects.items(), key=lambda pair: -abs(pair[1]))[:5]
        if one.by == "counterfactual":
            why = "; ".join(f"{c.feature} {c.was} → {c.to}" for c in row.changes) + f": {row.would_be}" if row.changes else "nothing found"
        else:
            why = ", ".join(f"{name} {value:+.3g}" for name, value in top)
        line(f"  row {row.row}: {row.answer} · {why}")
    if one.check is not None:
        line(f"  insertion less deletion {one.check.gap:.3f}, random order {one.check.random:.3f} ± {one.check.random_spread:.3f}")
    if one.error is not None:
        line(f"  contributions miss the score by {one.error:.1e} of its size")
    if one.similarity is not None:
        line(f"  maps against those of random weights: SSIM {one.similarity:.2f}")
    for note in one.notes:
        line(f"  · {note}")
    line(f"page: {found.page}")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def scored(found: "Scored", *, as_json: bool) -> None:
    if as_json:
        document({"out": str(found.out), "n_rows": found.n_rows, "n_faults": found.n_faults, "seconds": found.seconds})
        return
    faults = f"; {found.n_faults:,} cells could not be read and counted as missing" if found.n_faults else ""
    line(f"{found.n_rows:,} rows answered in {show_seconds(found.seconds)}: {found.out}{faults}")


def served_what(file: Path | None, package: Path | None, version: str | None, host: str | None, port: int | None, log: Path | None) -> tuple[Path, "Serve"]:
    """The package folder and the server's settings that the options of `mis serve` mean."""
    from modelinscale.api import served

    return served(file, package, version, host, port, log)


def serving(folder: Path, host: str, port: int, *, as_json: bool) -> None:
    """The server is ready."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if as_json:
        line(json.dumps({"address": address, "package": str(folder), "pid": os.getpid()}))
    else:
        line(f"serving {folder} at {address} (page: {address}/docs, stop: Ctrl-C)")


def described(what: str, found: "Described", *, as_json: bool) -> None:
    if as_json:
        document(found.facts)
        return
    line(found.title)
    for part in found.tables:
        if part.title:
            line(part.title)
        table(part.header, part.rows)
    for note in found.notes:
        line(f"  · {note}")


def rotated(found: "Rotated", *, as_json: bool) -> None:
    if as_json:
        document(found.plain())
        return
    for name, n_rows in found.rows.items():
        line(f"table {name}: the pseudonyms of {n_rows:,} rows were made again; its earlier versions are gone.")
    if found.logged:
        line(f"prediction log: the pseudonyms of {found.logged:,} rows were made again.")
    line(f"every pseudonym is of key {found.key_id} now." if found.rows else f"every pseudonym is of key {found.key_id} already.")
    if found.steps:
        line("next: mis run, which learns from the new words.")


def forgotten(found: "Forgotten", *, as_json: bool) -> None:
    if as_json:
        document(found.plain())
        return
    n_rows, would = sum(found.rows.values()), "would be " if found.dry_run else ""
    line(f"{n_rows:,} rows and {found.quarantined:,} lines in quarantine {would}removed, with every version of the table that held them.")
    if not (n_rows or found.quarantined or found.versions or found.logged):
        line(f"  nobody was found: is the person named as the source writes {found.column!r}?")
    if found.logged:
        line(f"{found.logged:,} rows of the prediction log {would}removed.")
    for name, versions in found.versions.items():
        line(f"  table {name}: versions {', '.join(map(str, versions))}")
    if found.models:
        line("versions of the model that learned from them:")
        shown = [
            (str(m.version), ", ".join(m.aliases), "" if m.sure else "perhaps: its rows cannot be read any more", f"{m.golden_rows}", ", ".join(m.still_holds))
            for m in found.models
        ]
        table(("version", "alias", "", "golden rows removed", "still holds the value"), shown)
        line(f"they {'would be' if found.dry_run else 'are'} marked to be learned again; `mis run` does it, and says what to promote.")
        if any(m.still_holds for m in found.models):
            line("a package that still holds the value must be removed once another version is champion.")
    for note in found.notes:
        line(f"  · {note}")


def audit(entries: "Sequence[Entry]", *, as_json: bool) -> None:
    if as_json:
        document([vars(entry) for entry in entries])
        return
    shown = [(str(e.seq), e.time[:19].replace("T", " "), e.actor, e.action, e.object, _facts(e.facts)) for e in entries]
    table(("line", "time (UTC)", "who", "what", "to what", ""), shown) if shown else line("nothing was done yet.")


def _facts(facts: Mapping[str, Any]) -> str:
    words = ", ".join(f"{k} {v if isinstance(v, str | int | float) else json.dumps(v)}" for k, v in facts.items() if v not in (None, [], ""))
    return words if len(words) <= 80 else words[:79] + "…"


def audit_verdict(found: "Verdict", *, as_json: bool) -> None:
    if as_json:
        document({**vars(found), "whole": found.whole})
        return
    if found.whole:
        line(f"{found.n_lines:,} lines, and each follows from the one before; the newest: {found.head}")
    if found.broken_line is not None:
        line(f"line {found.broken_line} was tampered with: {found.because}. The {found.n_lines:,} lines before it are whole.")
    for anchor in found.missing_anchors:
        line(f"no line has the hash {anchor}, which was kept elsewhere: lines were cut off at the end, or this is another log.")
    if found.torn_bytes:
        line(f"  · {found.torn_bytes:,} bytes at the end are a line that a crash cut off; the next entry notes it.")


def moved(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        document(dict(found))
    else:
        before = f" (before: {found['before']})" if found.get("before") is not None else ""
        line(f"{found['name']}: champion is version {found['champion']}{before}")
        for note in found.get("notes", ()):
            line(f"  · {note}")


def contract(document_: Mapping[str, Any], told: Sequence[str], out: Path | None, *, as_json: bool) -> None:
    """A contract, or what is taken from one, as YAML (as JSON with what could not be said)."""
    import yaml

    from modelinscale.core.files import write_bytes
    from modelinscale.data.odcs import as_plain

    plain = as_plain(document_)
    shown = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)
    if out is not None:
        write_bytes(out, shown.encode())
    if as_json:
        document({"document": plain, "told": list(told), "out": None if out is None else str(out)})
        return
    line(f"wrote {out}" if out is not None else shown.rstrip("\n"))
    for note in told:
        aside(f"  · {note}")


def kinds(found: Mapping[str, Mapping[str, str]], *, as_json: bool) -> None:
    if as_json:
        document(found)
        return
    for folder, members in found.items():
        line(folder)
        table(("", ""), list(members.items()))


def demo_stage(*, quiet: bool) -> "Callable[[Stage], None]":
    """Tells each stage of the demo as it is done, or nothing."""
    return (lambda stage: None) if quiet else _demo_stage


def _demo_stage(stage: "Stage") -> None:
    from modelinscale import demo as d

    match stage:
        case d.Begun():
            how = {"written": "", "changed": " (with another number of days)", "found": " (as it was)"}[stage.state]
            line(f"1 · {stage.days} days of card payments of a made-up bank; what to make of them stands in {stage.file}{how}")
        case d.Built():
            line(f"2 · from rows to a model in {show_seconds(stage.seconds)}")
            outcome(stage.outcome, as_json=False, next_step=False)
            if stage.quarantined:
                line("  in quarantine:")
                for reason, n in stage.quarantined.items():
                    line(f"    {n:>5,} × {reason}")
        case d.Started():
            line(f"3 · a server, ready after {show_seconds(stage.seconds)}: {stage.address}")
        case d.Asked():
            line("4 · asked over HTTP about the newest payments, whose labels the bank will know in a week")
            table(("paid at", "amount", "shop", "place", "fraud?", "decision", "turns out"), [_payment(p) for p in stage.some], indent="    ")
            line(
                f"  all {stage.n_payments:,} of that week in {show_seconds(stage.seconds)}: {stage.n_caught} of {stage.n_frauds} frauds stopped"
                f" ({stage.amount_caught:,.0f} of {stage.amount_frauds:,.0f} in money), {stage.n_false_alarms} false alarms"
            )
        case d.Refused():
            line(f"5 · a request with a mistake ({json.dumps(stage.sent)}): {stage.status}")
            line(f"    {stage.error.get('message', '')} {stage.error.get('fix', '')}".rstrip())
        case d.Stopped():
            how = "" if stage.exit_code == 0 else f" and ended with {stage.exit_code}"
            line(f"6 · what the server counted, from /metrics; then it was asked to stop{how}")
            for counted in stage.metrics:
                line(f"    {counted}")
        case d.Places():
            line("7 · where everything lies")
            for name, place in vars(stage).items():
                line(f"    {name:<10}  {place}")


def _payment(payment: "Payment") -> tuple[str, ...]:
    return (
        payment.paid_at[5:16],
        f"{payment.amount:,.2f}",
        payment.category,
        payment.place,
        f"{payment.probability:.1%}",
        "stop" if payment.stopped else "pass",
        "fraud" if payment.fraud else "honest",
    )


def demo(found: "Demo", *, as_json: bool) -> None:
    if as_json:
        document(found.plain())
        return
    file, days = found.begun.file, found.begun.days
    line(f"all in {show_seconds(found.seconds)}. Try next:")
    steps = (
        (f"mis serve -f {file}", "the page at / shows every input, with an example to send"),
        (f"mis show card -f {file}", "what the model is good for, and where not"),
        (f"mis demo {file.parent} --days {days + 7}", "a week goes by: only what is new is done"),
        (f"mis demo {file.parent}", "nothing new: nothing is done again"),
        ("mis init your.csv --target column", "the same for your own data"),
    )
    for command, words in steps:
        line(f"    {command:<{max(len(c) for c, _ in steps)}}  {words}")
