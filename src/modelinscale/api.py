"""The same verbs as the command line, as a Python API: ``Project("model.yaml").run()``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelinscale.core.errors import NotSupportedYet, UsageError, did_you_mean

if TYPE_CHECKING:
    from threading import Event

    from modelinscale.data.odcs import Exported, Imported
    from modelinscale.package import Package
    from modelinscale.pipeline import Described, Outcome, Plan
    from modelinscale.pipeline._deploy import Deployment
    from modelinscale.pipeline._explain import Told
    from modelinscale.pipeline._follow import Followed
    from modelinscale.pipeline._forget import Forgotten
    from modelinscale.pipeline._rotate import Rotated
    from modelinscale.pipeline._vacuum import Vacuum
    from modelinscale.score import Scored
    from modelinscale.serve import Serve
    from modelinscale.spec import ModelSpec
    from modelinscale.track import Tracker
    from modelinscale.track.audit import Audit, Verdict
    from modelinscale.tune import Entry

Progress = Callable[[str, float | None, str], None]
"""Called with the step, the share of it done (0 to 1; None: not known) and a few words."""


def _silent(step: str, share: float | None, note: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Drafted:
    """A model.yaml that was written."""

    file: Path
    target: str
    task: str
    n_features: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """What model.yaml means on the data as it is."""

    columns: list[dict[str, str]]
    features: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    target: dict[str, Any]
    notes: tuple[str, ...]

    def role(self, column: str) -> str:
        """What becomes of a column, in a word or two."""
        if column in self.features:
            return str(self.features[column]["type"])
        if column in self.target["columns"]:
            return f"target ({self.target['task']})"
        return f"left out: {self.left_out[column]}" if column in self.left_out else "not used"


@dataclass(frozen=True)
class Tuned:
    """What a search for settings found."""

    facts: dict[str, Any]
    """``family``, ``model`` (its settings), ``loss``, ``importance``, ``report`` (the page) and more."""
    fresh: bool
    """Whether it was searched now."""
    in_file: bool
    """Whether `run` trains with what was found: the file asks for just this search."""


class Project:
    """One model.yaml and all that came of it."""

    def __init__(self, file: Path | str | None = None) -> None:
        """Opens a model.yaml, or the one in a folder, or (None) the one here. Raises `SpecError` listing every mistake in it."""
        from modelinscale import spec

        self.file = spec.find(file)
        self.base = self.file.absolute().parent
        self.spec: ModelSpec = spec.load(self.file)

    def check(self) -> Checked:
        """What the file means on the data: columns, types, features, target. Changes nothing; raises what `run` would raise about the file."""
        from modelinscale.pipeline._check import check

        return Checked(**check(self.spec, self.base))

    def plan(self) -> Plan:
        """What `run` would do and why. Changes nothing."""
        from modelinscale.pipeline import plan

        return plan(self.spec, self.base)

    def run(self, *, until: str = "register", progress: Progress = _silent) -> Outcome:
        """Does every step up to ``until`` that is not done yet: collect, prepare, train, evaluate, export, register."""
        from modelinscale.pipeline import run

        return run(self.spec, self.base, until=until, progress=progress)

    def explain(
        self,
        rows: str | None = None,
        *,
        by: str | None = None,
        settings: dict[str, Any] | str | None = None,
        n_rows: int = 2000,
        out: Path | None = None,
        progress: Progress = _silent,
    ) -> Told:
        """What the answers of the newest run rest on: over ``n_rows`` test rows, or (``rows``: a data file) row by row.

        ``by`` names a kind of `explain`, ``settings`` are its own (JSON text or a mapping). Writes a page and a JSON file into ``out`` or the store.
        """
        import json

        from modelinscale.pipeline._explain import explain

        if isinstance(settings, str):
            try:
                settings = json.loads(settings)
            except ValueError as error:
                raise UsageError(f"the settings are no JSON ({error}).", fix='Write {"immutable": ["age"]}, in single quotes on a command line.') from error
        if settings is not None and (by is None or not isinstance(settings, dict)):
            raise UsageError("settings need the name of what they are for, and are a JSON object.", fix="Give --by as well.")
        way = {"type": by, **settings} if settings is not None else by
        return explain(self.spec, self.base, rows, way, n_rows=n_rows, out=out, progress=progress)

    def tune(
        self, *, trials: int | None = None, workers: int | None = None, progress: Progress = _silent, watch: Callable[[Sequence[Entry]], None] | None = None
    ) -> Tuned:
        """Looks for the settings that learn best, as the file's ``tune`` says, or by default; `run` trains with them where the file has a ``tune``.

        ``trials`` and ``workers`` instead of the file's; ``watch`` is called with all trials whenever one begins or ends.
        """
        from modelinscale.pipeline import run
        from modelinscale.pipeline._tune import report_of
        from modelinscale.tune import Tune

        settings = (self.spec.tune or Tune()).but(**{name: value for name, value in (("trials", trials), ("workers", workers)) if value is not None})
        steps = run(self.spec.but(tune=settings), self.base, until="tune", progress=progress, watch=watch).steps
        return Tuned(report_of(steps[-1]), fresh=steps[-1].fresh, in_file=self.spec.tune is not None and self.spec.tune.trials == settings.trials)

    def follow(self, *, stop: Event, news: Callable[[Followed], None] = lambda followed: None, every_s: float | None = None) -> Followed:
        """Brings rows into the lake as they arrive, until ``stop`` is set; ``news`` is called for every commit and whenever the source comes or goes."""
        from modelinscale.pipeline import follow

        return follow(self.spec, self.base, stop=stop, news=news, every_s=every_s)

    def deploy(
        self, target: str, settings: dict[str, Any], *, out: Path | None = None, apply: bool = False, status: bool = False, undo: bool = False
    ) -> Deployment:
        """The files that a target needs, written to ``out`` if given; with ``apply``, ``status`` or ``undo`` also put into force, asked after, taken back."""
        from modelinscale.pipeline._deploy import deploy

        return deploy(self.spec, self.file.absolute(), target, settings, out=out, apply=apply, status=status, undo=undo)

    def vacuum(self, older_than: str | float = "30d", *, keep_versions: int = 1, dry_run: bool = False) -> Vacuum:
        """Removes versions of the table older than that, in no use, and trained on by no model. Raises `StoreError` while a run is at work."""
        from modelinscale.core.units import seconds
        from modelinscale.pipeline._place import Place
        from modelinscale.pipeline._vacuum import vacuum

        found = vacuum(self.spec, self.base, older_than_s=seconds(older_than), keep_versions=keep_versions, dry_run=dry_run)
        if not dry_run:
            with Place.of(self.spec, self.base).store.shared():
                self.audit.write("vacuum", self.spec.name, removed={one.name: list(one.removed) for one in found.tables}, bytes_freed=found.bytes_freed)
        return found

    @cached_property
    def tracker(self) -> Tracker:
        """Runs and registered versions of this project."""
        from modelinscale.pipeline._place import Place
        from modelinscale.pipeline._register import tracker

        return tracker(Place.of(self.spec, self.base))

    def package_folder(self, version: str | None = None) -> Path:
        """The folder of a version or alias; None: the champion. Raises `UsageError` when there is none."""
        return self.tracker.resolve(self.spec.name, version or "champion")

    def package(self, version: str | None = None) -> Package:
        """A version or alias (None: the champion), opened and checked."""
        from modelinscale.package import open_package

        return open_package(self.package_folder(version))

    def promote(self, version: str) -> dict[str, Any]:
        """Makes a version the champion."""
        return self._move("promote", self.tracker.number(self.spec.name, version))

    def rollback(self) -> dict[str, Any]:
        """Makes the champion before this one the champion again. Raises `UsageError` when there was none."""
        return self._move("rollback", self.tracker.before(self.spec.name, "champion"))

    def _move(self, action: str, number: int) -> dict[str, Any]:
        from modelinscale.pipeline._place import Place
        from modelinscale.pipeline._register import refit_note

        place = Place.of(self.spec, self.base)
        with place.store.shared():
            before = self.tracker.aliases(self.spec.name).get("champion")
            # The line comes first and its hash goes with the move: a move that failed is in the log, one that is not in the log cannot be.
            head = self.audit.write(action, f"{self.spec.name} version {number}", before=before)
            self.tracker.alias(self.spec.name, "champion", number, anchor=head)
            refit = refit_note(place)
        return {"name": self.spec.name, "champion": number, "before": before, "notes": [refit] if refit else []}

    def forget(self, persons: Sequence[str], *, dry_run: bool = False) -> Forgotten:
        """Removes persons, named as the source names them, from everything that is stored; tells which models learned from them."""
        from modelinscale.pipeline._forget import forget
        from modelinscale.pipeline._place import Place

        return forget(Place.of(self.spec, self.base), persons, dry_run=dry_run)

    def rotate(self) -> Rotated:
        """Brings the pseudonyms in the lake to the newest key of ``data.pseudonym_key``."""
        from modelinscale.pipeline._place import Place
        from modelinscale.pipeline._rotate import rotate

        return rotate(Place.of(self.spec, self.base))

    @cached_property
    def audit(self) -> Audit:
        """What was done here, when and by whom."""
        from modelinscale.pipeline._lineage import audit_of
        from modelinscale.pipeline._place import Place

        return audit_of(Place.of(self.spec, self.base))

    def verify_audit(self, anchors: Sequence[str] = ()) -> Verdict:
        """Whether the audit log is what was written, held against ``anchors`` and those that the registry kept at each promotion."""
        return self.audit.verify([*anchors, *self.tracker.anchors(self.spec.name)])

    def export_contract(self) -> Exported:
        """The contract of the table's rows as a document of the Open Data Contract Standard."""
        from modelinscale.pipeline._contract import export_contract

        return export_contract(self.spec, self.base)

    def card(self, version: str | None = None) -> str:
        """The model card, in Markdown."""
        return (self.package_folder(version) / "card.md").read_text(encoding="utf-8")

    def describe(self, what: str = "project") -> Described:
        """What there is: ``project``, ``lake``, ``collect`` or ``quarantine``."""
        from modelinscale.pipeline._describe import describe
        from modelinscale.pipeline._place import Place

        return describe(what, Place.of(self.spec, self.base))


def init(data: Sequence[str], *, target: str, out: Path | str = "model.yaml", name: str | None = None, model: str = "auto", force: bool = False) -> Drafted:
    """Looks at data and writes a commented model.yaml. Raises `UsageError` rather than write over a file, `DataError` when the target cannot be learned."""
    from modelinscale.core.files import write_bytes
    from modelinscale.core.kinds import names
    from modelinscale.pipeline._draft import sketch
    from modelinscale.spec import draft

    path = Path(out)
    if path.is_dir():
        path = path / "model.yaml"
    if path.exists() and not force:
        raise UsageError(f"{path} is there already.", fix="Give another name with --out, or write over it with --force.")
    known = ("auto", *names("models"))
    if model not in known:
        raise UsageError(f"there is no model family {model!r}.{did_you_mean(model, known)}", fix=f"Known: {', '.join(known)}.")
    found, notes = sketch(list(data), target=target, out=path, name=name, model=model)
    write_bytes(path, draft.write(found).encode())
    return Drafted(path, target, found.task.type, len(found.features), notes)


def predict(
    rows: str,
    *,
    out: Path | str,
    file: Path | None = None,
    package: Path | None = None,
    version: str | None = None,
    strict: bool = False,
    progress: Progress = _silent,
) -> Scored:
    """Answers every row of a file in constant memory, with a package folder or a version of the project (the champion, if neither is named).

    With a project, where its `compute` says if it says anything; a package folder alone is used on this machine.
    """
    from modelinscale.compute.local import Local
    from modelinscale.data.sources import Source
    from modelinscale.package import open_package
    from modelinscale.score import score
    from modelinscale.spec._source import settings_of

    opened = open_package(_folder(file, package, version))
    compute = Local() if package is not None else Project(file).spec.compute
    return score(
        opened,
        Source.parse(settings_of(rows)),
        Path(out),
        compute=None if compute == Local() else compute,
        progress=lambda n, note: progress("predict", None, f"{n:,} rows {note}"),
        strict=strict,
    )


def served(file: Path | None, package: Path | None, version: str | None, host: str | None, port: int | None, log: Path | None = None) -> tuple[Path, Serve]:
    """The package folder and the settings to serve it with: those of model.yaml (the defaults when only a package is named), changed by what is given.

    ``log``: where the prediction log goes; without it, into the store of the model.yaml, and nowhere when only a package is named.
    """
    from modelinscale.serve import Serve

    settings = Serve()
    if package is None or file is not None:
        from modelinscale.pipeline._logged import log_root

        project = Project(file)
        settings = project.spec.serve
        log = log or log_root(project.spec, project.base)
    changes: dict[str, Any] = {k: v for k, v in (("host", host), ("port", port)) if v is not None}
    if log is not None and settings.log.rows:
        changes["log"] = settings.log.but(folder=log)
    return _folder(file, package, version), settings.but(**changes) if changes else settings


def _folder(file: Path | None, package: Path | None, version: str | None) -> Path:
    if package is not None:
        if version is not None:
            raise UsageError("a package folder and a version were both given.", fix="Give --package or --version, not both.")
        return package
    return Project(file).package_folder(version)


def import_contract(path: Path | str, table: str | None = None) -> Imported:
    """What a contract of the Open Data Contract Standard says, as the ``data`` part of a model.yaml. Raises `SpecError` when it is none."""
    from modelinscale.spec._contract import read_contract

    return read_contract(Path(path), table)


def kinds(folder: str | None = None) -> dict[str, dict[str, str]]:
    """What ``type:`` may name, with the first line of each one's help, by folder."""
    import inspect

    from modelinscale.core.kinds import load, names

    folders = (
        "data.sources",
        "data.checks",
        "data.cleaners",
        "features",
        "models",
        "metrics",
        "explain",
        "compute",
        "store",
        "track.trackers",
        "deploy.targets",
        "tune.searchers",
    )
    if folder is not None and folder not in folders:
        raise UsageError(f"there is no kind folder {folder!r}.{did_you_mean(folder, folders)}", fix=f"Known: {', '.join(folders)}.")
    return {f: {n: (inspect.getdoc(load(f, n)) or "").split("\n")[0] for n in names(f)} for f in folders if folder in (None, f)}


__all__ = ["Checked", "Drafted", "NotSupportedYet", "Project", "Tuned", "import_contract", "init", "kinds", "predict", "served"]
