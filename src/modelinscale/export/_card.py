"""The model card: what the model is for, where it comes from, how good it is and where it is not. Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modelinscale.core.page import number
from modelinscale.core.units import show_bytes

if TYPE_CHECKING:
    from modelinscale.core.decision import Decision
    from modelinscale.package import Manifest
    from modelinscale.package.manifest import Origin

_MOST_SLICES = 12
_MOST_IMPORTANCES = 20
_MOST_COLUMNS = 60
_MOST_CLASSES = 12
_MOST_THRESHOLDS = 12
_BAR = 20


@dataclass(frozen=True)
class Story:
    """What the card tells beyond what the package itself knows. Whatever is empty is left out of it."""

    purpose: str = ""
    """What the model is for, in the user's words."""
    split: str = ""
    """How rows were held out, in words."""
    sources: Sequence[str] = ()
    """What the rows were read from; the first gave them, others were joined to it."""
    n_collected: int = 0
    """Rows in the table version."""
    n_quarantined: int = 0
    """Rows set aside because they could not be read or broke the contract."""
    quarantine: Mapping[str, int] = field(default_factory=dict)
    """Reason -> rows, the most frequent first."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Columns the model does not see, with the reason."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """`evaluate.Evaluation` as plain data."""
    trials: Sequence[Mapping[str, Any]] = ()
    """Families tried with their validation loss."""
    notes: Sequence[str] = ()
    """What a reader must know, in sentences."""


@dataclass(frozen=True)
class Inside:
    """What export knows of the model."""

    decision: "Decision"
    importance: Mapping[str, float]
    """Share of the model's work by column, summing to 1; empty where the family has no cheap answer."""
    size_bytes: int
    """Of the graph."""


def card(manifest: "Manifest", story: Story, inside: Inside) -> str:
    """The card, in Markdown."""
    parts = [
        _head(manifest, story),
        _purpose(manifest, story),
        _quality(manifest, story),
        _slices(story),
        _decisions(manifest, story, inside),
        _confusion(story),
        _data(manifest, story),
        _columns(manifest, story, inside),
        _limits(manifest, story),
        _lineage(manifest, inside),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _head(manifest: "Manifest", story: Story) -> str:
    words = manifest.task.several or {"binary": "one of two classes", "multiclass": f"one of {len(manifest.task.labels)} classes"}.get(
        manifest.task.type, "a number"
    )
    n_test = manifest.lineage.n_rows.get("test") or story.evaluation.get("n_rows")
    main = story.evaluation.get("metrics", {}).get(manifest.main)
    claim = f" **{manifest.main} {_interval(main)}** on {n_test:,} test rows it never saw." if main and n_test else ""
    return f"# {_text(manifest.name)}\n\nA {manifest.family} model that predicts `{_code(manifest.task.target)}`, {words}.{claim}"


def _purpose(manifest: "Manifest", story: Story) -> str:
    lines = [story.purpose] if story.purpose else []
    if manifest.task.labels:
        shown = ", ".join(f"`{_code(_label(v))}`" for v in manifest.task.labels[:_MOST_CLASSES])
        more = f" and {len(manifest.task.labels) - _MOST_CLASSES} more" if len(manifest.task.labels) > _MOST_CLASSES else ""
        positive = f" The one to find is `{_code(_label(manifest.task.labels[1]))}`." if manifest.task.type == "binary" else ""
        lines.append(f"{'Labels' if manifest.task.type == 'multilabel' else 'Classes'}: {shown}{more}.{positive}")
    return _section("Purpose", lines)


def _quality(manifest: "Manifest", story: Story) -> str:
    found = story.evaluation
    metrics = found.get("metrics", {})
    # A linear model is its own linear baseline.
    baselines, differences = ({name: of for name, of in found.get(part, {}).items() if name != manifest.family} for part in ("baselines", "differences"))
    if not metrics:
        return ""
    header = ["metric", "this model", f"{found.get('confidence', 0.95):.0%} interval", *(f"{b} baseline" for b in baselines)]
    rows = []
    for name, metric in metrics.items():
        others = [number(b.get(name, {}).get("value")) for b in baselines.values()]
        rows.append([f"**{name}**" if name == manifest.main else name, number(metric.get("value")), _range(metric), *others])
    lines = [_table(header, rows, right_from=1)]
    for name, difference in differences.items():
        main = difference.get(manifest.main)
        if main and main.get("low") is not None:
            sure = "no accident" if main["low"] * main["high"] > 0 else "may be chance"
            lines.append(f"Against the {name} baseline, {manifest.main} differs by {number(main['value'])} ({_range(main)}): {sure}.")
    if targets := found.get("targets"):
        each = [[f"`{_code(name)}`", *(number(of[m].get("value")) for m in metrics)] for name, of in targets.items()]
        lines.append(_table(["target", *metrics], each, right_from=1))
    if story.trials:
        lines.append("Tried: " + "; ".join(_trial(t) for t in story.trials) + ".")
    return _section("How good it is", lines)


def _slices(story: Story) -> str:
    found = story.evaluation.get("slices", ())
    if not found:
        return ""
    main = story.evaluation.get("main", "")
    rows = [
        [_text(f"{s['column']} = {s['value']}"), f"{s['n_rows']:,}", number(s["main"].get("value")), _range(s["main"]), "worse" if s.get("worse") else ""]
        for s in found[:_MOST_SLICES]
    ]
    more = f"The {_MOST_SLICES} worst of {len(found)} slices." if len(found) > _MOST_SLICES else ""
    return _section("Slices, the worst first", [_table(["rows with", "test rows", main, "interval", ""], rows, right_from=1), more])


def _decisions(manifest: "Manifest", story: Story, inside: Inside) -> str:
    decision, found, lines = inside.decision, story.evaluation, []
    if not manifest.task.numbers:
        how = {"none": "the model's own probabilities", "temperature": "temperature scaling", "isotonic": "isotonic regression"}
        lines.append(f"Probabilities: {how[decision.calibration]}.")
    if manifest.task.type == "binary":
        lines.append(f"`{_code(_label(manifest.task.labels[1]))}` is decided when its probability is above **{decision.threshold:.4g}**.")
    if decision.thresholds:
        shown = ", ".join(f"`{_code(_label(v))}` {t:.3g}" for v, t in list(zip(manifest.task.labels, decision.thresholds, strict=True))[:_MOST_CLASSES])
        lines.append(f"A label is given when its probability is above its threshold: {shown}.")
    if decision.calibration == "conformal":
        lines.append("Levels: moved on validation rows so that the truth stays below each as often as it says (conformalized quantile regression).")
    if decision.because:
        lines.append(f"Why: {decision.because.rstrip('.')}.")
    if decision.low is not None or decision.high is not None:
        lines.append(f"Answers are held between {number(decision.low)} and {number(decision.high)}.")
    if cost := found.get("cost"):
        lines.append(
            f"Mean cost of a row: **{_interval(cost['model'])}**; calling every row negative {number(cost['always_no'])}, "
            f"every row positive {number(cost['always_yes'])}. Saved against the cheaper of these: {_interval(cost['saving'])}."
        )
    if thresholds := found.get("thresholds"):
        step = -(-len(thresholds) // _MOST_THRESHOLDS)
        rows = [[number(t[k]) for k in ("threshold", "called", "precision", "recall", "cost")] for t in thresholds[::step]]
        lines.append(_table(["threshold", "share called positive", "precision", "recall", "mean cost"], rows, right_from=0))
    if bins := found.get("reliability"):
        if manifest.task.levels:
            rows = [[number(b["said"]), number(b["came"]), _range(b)] for b in bins]
            lines.append(_table(["level", "share of test rows whose truth is not above", "interval"], rows, right_from=0))
            bins = ()
        said, came = ("mean answer", "mean truth") if manifest.task.numbers else ("probability said", "came true")
        rows = [[f"{b['n_rows']:,}", number(b["said"]), number(b["came"]), _range(b)] for b in bins]
        lines.append(_table(["test rows", said, came, "interval"], rows, right_from=0) if rows else "")
    if one := found.get("conformal"):
        lines.append(_conformal(one))
    if residuals := found.get("residuals"):
        lines.append("Truth minus answer, by share of test rows: " + ", ".join(f"{float(q):.0%} ≤ {number(v)}" for q, v in residuals.items()) + ".")
    return _section("Calibration and decisions", lines)


def _conformal(found: Mapping[str, Any]) -> str:
    """How often sets or intervals held the truth, and what leaving out unsure rows saves."""
    numbers = found["method"] in ("residual", "levels")
    what, size = ("Intervals", "wide") if numbers else ("Sets of classes", "classes large")
    covered = found["covered"]
    mean = "" if found["mean_size"] is None else f", on average {number(found['mean_size'])} {size}"
    words = f"{what} made on {found['n_valid']:,} validation rows to hold the truth for {found['coverage']:.0%} of the rows hold it for "
    words += f"**{covered['value']:.1%}** of the test rows ({covered['low']:.1%} – {covered['high']:.1%}){mean}."
    short = [f"`{_code(s['column'])}` = {_text(s['value'])} ({s['covered']['value']:.1%})" for s in found.get("slices", ()) if s.get("short")]
    if short:
        words += f" Less often where {', '.join(short[:_MOST_SLICES])}."
    left = found.get("abstention") or {}
    if left.get("share") is not None and left.get("error_left") is not None:
        words += f" Leaving the least sure {left['share']:.1%} of the rows to somebody else brings wrong decisions from {left['error']:.1%} to "
        words += f"{left['error_left']:.1%} of the others."
    return words


def _confusion(story: Story) -> str:
    found = story.evaluation.get("confusion")
    if not found or len(found["labels"]) > _MOST_CLASSES:
        return ""
    labels = [_text(_label(v)) for v in found["labels"]]
    rows = [[f"**{label}**", *(f"{n:,}" for n in row)] for label, row in zip(labels, found["counts"], strict=True)]
    return _section("Test rows by truth (down) and decision (across)", [_table(["", *labels], rows, right_from=1)])


def _data(manifest: "Manifest", story: Story) -> str:
    lineage, lines = manifest.lineage, []
    if story.sources:
        first, *others = [f"`{_code(one)}`" for one in story.sources]
        lines.append(f"Rows from {first}" + (f", joined with {', '.join(others)}" if others else "") + ".")
    if story.n_collected:
        version = f" version {lineage.table_version}" if lineage.table_version is not None else ""
        lines.append(f"Table{version}: {story.n_collected:,} rows.")
    if lineage.n_rows:
        words = {"train": "to learn from", "valid": "to choose with (early stopping, calibration, threshold)", "test": "to test on"}
        lines.append("Rows: " + ", ".join(f"{n:,} {words.get(part, part)}" for part, n in lineage.n_rows.items()) + ".")
    if story.split:
        lines.append(f"Split {story.split.rstrip('.')}.")
    if story.n_quarantined:
        lines.append(f"Quarantine: {story.n_quarantined:,} rows were set aside. See them with `mis show quarantine`.")
        lines.append(_table(["reason", "rows"], [[_text(reason), f"{n:,}"] for reason, n in list(story.quarantine.items())[:_MOST_SLICES]], right_from=1))
    elif story.n_collected:
        lines.append("Quarantine: empty; every row could be read and fulfilled the contract.")
    return _section("Data", lines)


def _columns(manifest: "Manifest", story: Story, inside: Inside) -> str:
    lines = []
    top = sorted(((n, s) for n, s in inside.importance.items() if s > 0), key=lambda item: (-item[1], item[0]))[:_MOST_IMPORTANCES]
    if top:
        largest = top[0][1]
        rows = [[f"`{_code(name)}`", f"{share:.1%}", "█" * max(1, round(_BAR * share / largest))] for name, share in top]
        lines.append(_table(["column", "share of the model's work", ""], rows, right_from=1, left_last=True))
    rows = [[f"`{_code(c.name)}`", c.column.type, "yes" if c.required else "no"] for c in manifest.inputs[:_MOST_COLUMNS]]
    more = f"And {len(manifest.inputs) - _MOST_COLUMNS} more, all in `manifest.json`." if len(manifest.inputs) > _MOST_COLUMNS else ""
    lines += [_table(["input", "type", "must be there"], rows, right_from=9), more]
    if story.left_out:
        lines.append("Not used: " + "; ".join(f"`{_code(name)}` ({_text(why)})" for name, why in list(story.left_out.items())[:_MOST_COLUMNS]) + ".")
    return _section("Columns", lines)


def _limits(manifest: "Manifest", story: Story) -> str:
    found = story.evaluation
    notes = [_text(note, longest=1000) for note in dict.fromkeys([*story.notes, *found.get("notes", ())])]
    worse = [f"`{_code(s['column'])}` = {_text(s['value'])}" for s in found.get("slices", ()) if s.get("worse")]
    if worse:
        notes.append(f"It is worse than elsewhere where {', '.join(worse[:_MOST_SLICES])}.")
    notes.append("It answers as rows like those it learned from would have it. Rows unlike them get an answer too, and nothing in the answer says so.")
    notes.append("Importances say what the model uses, not what causes the target.")
    return _section("Limits", ["\n".join(f"- {_sentence(note)}" for note in notes)])


def _lineage(manifest: "Manifest", inside: Inside) -> str:
    lineage, parity = manifest.lineage, manifest.parity
    facts = {
        "identity": manifest.identity,
        "made": manifest.created,
        "code": f"modelinscale {lineage.code}" if lineage.code else "",
        "model.yaml": lineage.spec,
        "table": lineage.table,
        "rows and split": lineage.data,
        "seed": "" if lineage.seed is None else str(lineage.seed),
        "graph": f"model.onnx, {show_bytes(inside.size_bytes)}",
        **{f"learned elsewhere ({one.column})": _origin(one) for one in manifest.origins},
    }
    proved = (
        f"Before this package was written, the graph decided as the training code did on {parity.n_rows:,} validation rows, {parity.n_odd:,} rows with odd "
        f"values and {parity.n_edges:,} rows at tree thresholds; the largest difference was {parity.largest_difference:.1e} (allowed {parity.bound:g})."
    )
    if parity.n_edges_left_out:
        proved += f" Every threshold was tried; {parity.n_edges_left_out:,} further rows at thresholds were not."
    return _section("Lineage", [_table(["", ""], [[k, f"`{_code(v)}`"] for k, v in facts.items() if v], right_from=9), proved])


def _origin(one: "Origin") -> str:
    return f"{one.architecture} from {one.source}{f' at {one.revision}' if one.revision else ''}, license: {one.license or 'not named'}"


# -- pieces of Markdown


def _section(title: str, lines: Iterable[str]) -> str:
    body = "\n\n".join(line for line in lines if line)
    return f"## {title}\n\n{body}" if body else ""


def _table(header: list[str], rows: list[list[str]], *, right_from: int, left_last: bool = False) -> str:
    """A table in columns of one width, so that it also reads well as text; columns from ``right_from`` on hold numbers."""
    if not rows:
        return ""
    widths = [max(3, *(len(r[i]) for r in (header, *rows))) for i in range(len(header))]
    right = [i >= right_from and not (left_last and i == len(header) - 1) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)) + " |"

    rule = "| " + " | ".join("-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)) + " |"
    return "\n".join([line(header), rule, *map(line, rows)])


def _trial(trial: Mapping[str, Any]) -> str:
    name = str(trial.get("family") or trial.get("model") or "?")
    loss, why = trial.get("loss"), trial.get("because") or trial.get("note") or ""
    return f"{name} ({f'validation loss {number(loss)}' if loss is not None else _text(str(why)) or 'no result'})"


def _range(estimate: Mapping[str, Any]) -> str:
    low, high = estimate.get("low"), estimate.get("high")
    return "" if low is None or high is None else f"{number(low)} – {number(high)}"


def _interval(estimate: Mapping[str, Any]) -> str:
    found = _range(estimate)
    return number(estimate.get("value")) + (f" ({found})" if found else "")


def _sentence(text: str) -> str:
    text = text.strip()
    first = text.split(" ", 1)[0]
    start = text[:1].upper() if first.isalpha() else text[:1]  # the name of a metric or column stays as it is
    return start + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _label(label: object) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def _text(text: str, *, longest: int = 200) -> str:
    """Foreign words made harmless: they come from data, and Markdown would read them as its own."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}" if sign not in "<>" else {"<": "&lt;", ">": "&gt;"}[sign])
    return " ".join(text.split())[:longest]


def _code(text: str) -> str:
    """Foreign words between backticks, inside a table or not."""
    return " ".join(text.replace("`", "'").replace("|", "\\|").split())[:120]
