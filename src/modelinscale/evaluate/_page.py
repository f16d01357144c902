"""An evaluation for people: one HTML page that needs nothing else, from the facts and the points of its curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelinscale.core import page as p
from modelinscale.core.task import Label, Task
from modelinscale.evaluate._curves import Curves
from modelinscale.evaluate._facts import Conformal, Estimate, Evaluation

MOST_SHADED, MOST_CONFUSED, MOST_SLICES = 20, 15, 40


@dataclass(frozen=True)
class About:
    """What an evaluation report says besides the evaluation."""

    name: str
    family: str
    curve: Sequence[Mapping[str, Any]] = ()
    """How it learned: ``epoch``, ``train_loss``, ``valid_loss``, ``rate``, where the family tells."""
    trials: Sequence[Mapping[str, Any]] = ()
    """Families tried: ``model`` (with its ``type``), ``loss``, ``seconds``, ``note``."""
    notes: Sequence[str] = ()
    n_train: int = 0


def html(found: Evaluation, task: Task, curves: Curves, about: About) -> str:
    """The page."""
    under = f"{about.family} predicts {task.target}; {found.n_rows:,} test rows it never saw"
    under += f", learned from {about.n_train:,}" if about.n_train else ""
    main = found.metrics[found.main]
    cards = [(f"{p.number(main.value)}", f"{found.main} ({_range(main)})" if main.low is not None else found.main)]
    cards += [(p.number(of[found.main].value), f"{found.main} of the {name} baseline") for name, of in found.baselines.items() if found.main in of]
    if found.conformal is not None:
        cards.append((f"{found.conformal.covered.value:.1%}", f"of the truth inside {_what(found.conformal)} made for {found.conformal.coverage:.0%}"))
    parts = [
        p.cards(cards),
        p.notes(list(dict.fromkeys(about.notes))),
        _metrics(found, about),
        p.section("How it decides", _confusion(found), p.side_by_side(*_decisions(found, task, curves))),
        p.section("How far off it is", p.side_by_side(*_numbers(found, task, curves))),
        _conformal(found, task),
        _slices(found),
        _learning(about),
    ]
    return p.page(about.name, under, parts)


def _metrics(found: Evaluation, about: About) -> str:
    others = [name for name in found.baselines if name != about.family]
    header = [
        "metric",
        about.family,
        f"{found.confidence:.0%} interval",
        *(f"{name} baseline" for name in others),
    ]
    header += [f"better than {name}?" for name in others]
    rows = []
    for name, value in found.metrics.items():
        beside = [p.number(found.baselines[other][name].value) for other in others]
        rows.append([name, p.number(value.value), _range(value), *beside, *(_sure(found, other, name) for other in others)])
    note = "Differences are judged on the same resamples of the test rows."
    return p.section("How good it is", p.table(header, rows, marked=[0]), _targets(found), note=note)


def _targets(found: Evaluation) -> str:
    """Several target columns: each by itself."""
    if not found.targets:
        return ""
    return p.table(["target", *found.metrics], [[name, *(p.number(of[m].value) for m in found.metrics)] for name, of in found.targets.items()])


def _sure(found: Evaluation, other: str, name: str) -> str:
    from modelinscale.core.kinds import load

    gap = found.differences.get(other, {}).get(name)
    if gap is None or gap.low is None or gap.high is None or gap.value is None:
        return "–"
    if gap.low <= 0 <= gap.high:
        return "may be chance"
    higher = getattr(load("metrics", name), "better", "higher") == "higher"
    return f"{'yes' if (gap.value > 0) == higher else 'no, worse'}, by {p.number(abs(gap.value))}"


def _confusion(found: Evaluation) -> str:
    if found.confusion is None:
        return ""
    labels = [_word(label) for label in found.confusion.labels]
    if len(labels) <= MOST_SHADED:
        return p.shaded(labels, found.confusion.counts, "Truth", "decision")
    wrong = [(n, labels[i], labels[j]) for i, row in enumerate(found.confusion.counts) for j, n in enumerate(row) if i != j and n]
    rows = [(truth, said, f"{n:,}") for n, truth, said in sorted(wrong, reverse=True)[:MOST_CONFUSED]]
    return p.table(("truth", "taken for", "test rows"), rows, text=2)


def _decisions(found: Evaluation, task: Task, curves: Curves) -> list[str]:
    if task.numbers:
        return []
    roc = [p.Curve([(0, 0), (1, 1)], "by chance", 3), *(p.Curve(points, name, i) for i, (name, points) in enumerate(curves.roc.items()))]
    precision = [p.Curve(points, name, i) for i, (name, points) in enumerate(curves.precision.items())]
    precision += [p.Curve([(0, share), (1, share)], "" if i else "calling all so", 3) for i, share in enumerate(curves.share.values())]
    unit = (0.0, 1.0)
    figures = [
        p.figure("Probabilities against what came", _reliability(found, "probability said", "share that came true", unit), "On the grey line they are honest."),
        p.figure("ROC", p.plot(roc, "share of the others called so", "share found", x_range=unit, y_range=unit)) if curves.roc else "",
        p.figure("Precision and recall", p.plot(precision, "recall", "precision", x_range=unit, y_range=unit)) if curves.precision else "",
    ]
    return [*figures, _thresholds(found)]


def _reliability(found: Evaluation, x: str, y: str, span: tuple[float, float] | None) -> str:
    if not found.reliability:
        return ""
    ends = span or (min(b.said for b in found.reliability), max(b.said for b in found.reliability))
    ranges = [(b.came if b.low is None else b.low, b.came if b.high is None else b.high) for b in found.reliability]
    line = p.Curve([(ends[0], ends[0]), (ends[1], ends[1])], "honest", 3)
    return p.plot([line, p.Curve([(b.said, b.came) for b in found.reliability], "test rows", dots=True, ranges=ranges)], x, y, x_range=span, y_range=span)


def _thresholds(found: Evaluation) -> str:
    if not found.thresholds:
        return ""
    costs = [(one.threshold, one.cost) for one in found.thresholds]
    curve = p.Curve(costs, "mean cost of a row")
    most = max(cost for _, cost in costs)
    chosen = [] if found.threshold is None else [p.Curve([(found.threshold, 0), (found.threshold, most)], f"in use: {found.threshold:.4g}", 1)]
    note = "" if found.cost is None else f"It costs {p.number(found.cost.model.value)} a row; {p.number(found.cost.saving.value)} less than without a model."
    return p.figure("What other thresholds would cost", p.plot([curve, *chosen], "threshold", "mean cost of a row", x_range=(0, 1)), note)


def _numbers(found: Evaluation, task: Task, curves: Curves) -> list[str]:
    if not task.numbers or not curves.dots:
        return []
    low, high = min(min(d) for d in curves.dots), max(max(d) for d in curves.dots)
    equal, none = p.Curve([(low, low), (high, high)], "equal", 3), p.Curve([(min(a for a, _ in curves.off), 0.0), (max(a for a, _ in curves.off), 0.0)], "", 3)
    counts, start, stop = curves.residuals
    off = p.plot([p.Curve(curves.off, dots=True), none], "answer", "truth less answer")
    return [
        p.figure("Answer and truth", p.plot([p.Curve(curves.dots, "test rows", dots=True), equal], "answer", "truth"), "Some of the test rows, by chance."),
        p.figure("Truth less answer", off, "A bend or a funnel says what is not learned."),
        p.figure("How often by how much", p.bars(counts, start, stop, "truth less answer", "test rows"), "99 % of the test rows."),
        p.figure("Levels", _reliability(found, "level", "share of the truth below", (0.0, 1.0)), "On the grey line they are honest.")
        if task.levels
        else p.figure("Means of answers and truth", _reliability(found, "mean answer", "mean truth", None), "By bins of about equal size, with intervals."),
    ]


def _what(found: Conformal) -> str:
    return "intervals" if found.method in ("residual", "levels") else "sets of classes"


def _conformal(found: Evaluation, task: Task) -> str:
    one = found.conformal
    if one is None:
        return ""
    size = "mean width" if one.method in ("residual", "levels") else "classes in a set"
    rows = [["all test rows", f"{found.n_rows:,}", f"{one.coverage:.0%}", f"{one.covered.value:.1%}", _percents(one.covered), p.number(one.mean_size), ""]]
    for part in one.slices[:MOST_SLICES]:
        said = f"{part.column} = {part.value}"
        short = "too rarely" if part.short else ""
        rows.append([said, f"{part.n_rows:,}", f"{one.coverage:.0%}", f"{part.covered.value:.1%}", _percents(part.covered), p.number(part.mean_size), short])
    table = p.table(("rows", "test rows", "asked", "inside", "interval", size, ""), rows, marked=[0])
    figures = []
    if one.sizes:
        few = list(one.sizes)[: 1 + max((k for k, n in enumerate(one.sizes) if n), default=0)]
        note = "" if one.single_error is None else f"Where the set holds one class, {one.single_error:.1%} of the decisions are wrong."
        counted = [(str(k), f"{n:,}", f"{n / found.n_rows:.1%}") for k, n in enumerate(few) if n]
        figures.append(p.figure("Classes in a set", p.table(("classes", "test rows", "share"), counted), note))
    if one.abstention is not None and one.abstention.error > 0:
        left = one.abstention
        halves = ""
        if left.share is not None and left.error_left is not None:
            halves = (
                f"A border set to halve the errors on validation rows leaves out {left.share:.1%} of the test rows: {left.error:.1%} to {left.error_left:.1%}."
            )
        plot = p.plot(
            [p.Curve(left.points)],
            "share of rows left to somebody else",
            "share of wrong decisions",
            x_range=(0, 1),
            y_range=(0, max(y for _, y in left.points)),
        )
        figures.append(p.figure("What it saves to leave out unsure rows", plot, halves or "No border halves the errors."))
    note = f"{_what(one).capitalize()} ({one.method}{', each group by itself' if one.by_class else ''}) made on {one.n_valid:,} validation rows."
    return p.section(f"{_what(one).capitalize()} that hold the truth", table, p.side_by_side(*figures), note=note)


def _slices(found: Evaluation) -> str:
    rows = [
        [f"{s.column} = {s.value}", f"{s.n_rows:,}", p.number(s.main.value), _range(s.main), "worse" if s.worse else ""] for s in found.slices[:MOST_SLICES]
    ]
    marked = [i for i, s in enumerate(found.slices[:MOST_SLICES]) if s.worse]
    more = f" The {MOST_SLICES} worst of {len(found.slices)}." if len(found.slices) > MOST_SLICES else ""
    table = p.table(("rows with", "test rows", found.main, "interval", ""), rows, marked=marked)
    return p.section("By slice, the worst first", table, note=f"Marked: worse than on all rows by more than chance explains.{more}")


def _learning(about: About) -> str:
    curves = []
    for i, (key, name) in enumerate((("train_loss", "training rows"), ("valid_loss", "validation rows"))):
        points = [(float(one["epoch"]), float(one[key])) for one in about.curve if one.get(key) is not None]
        if points:
            curves.append(p.Curve(points, name, i))
    rates = [(float(one["epoch"]), float(one["rate"])) for one in about.curve if one.get("rate") is not None]
    figures = [p.figure("Loss", p.plot(curves, "epoch", "loss"), "Where the two part, it learns by heart.") if curves else ""]
    figures.append(p.figure("Step size", p.plot([p.Curve(rates)], "epoch", "step size")) if len(rates) > 1 else "")
    rows = [
        [str(t.get("model", {}).get("type", "?")), p.number(t.get("loss")), f"{t.get('seconds') or 0:.1f} s", str(t.get("note") or "")] for t in about.trials
    ]
    tried = p.table(("family tried", "validation loss", "took", ""), rows) if len(rows) > 1 else ""
    return p.section("How it learned", p.side_by_side(*figures), tried)


def _range(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"{p.number(estimate.low)} – {p.number(estimate.high)}"


def _percents(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"{estimate.low:.1%} – {estimate.high:.1%}"


def _word(label: Label) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)
