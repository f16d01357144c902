"""model.yaml as a value: every field checked, every mistake told at once with its line and column."""

from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from modelinscale.compute import Compute
from modelinscale.compute.local import Local as LocalCompute
from modelinscale.core import elsewhere
from modelinscale.core.access import Access
from modelinscale.core.bucket import SCHEMES
from modelinscale.core.errors import SpecError, did_you_mean
from modelinscale.core.kinds import names
from modelinscale.core.personal import Rule, short
from modelinscale.core.schema import ColumnType
from modelinscale.core.secrets import Reference, anchored
from modelinscale.core.settings import Also, Settings
from modelinscale.core.task import LEVELS, Label, TaskType, names_of
from modelinscale.core.units import Duration
from modelinscale.data.checks import Check
from modelinscale.data.cleaners import Cleaner
from modelinscale.data.cleaners._treatment import parse_cleaners
from modelinscale.data.contract import parse_checks
from modelinscale.data.sources import Source
from modelinscale.data.split import Split
from modelinscale.data.tail import Follow
from modelinscale.evaluate import Evaluate
from modelinscale.export import Export
from modelinscale.features import Feature
from modelinscale.models import Model
from modelinscale.serve import Serve
from modelinscale.spec._contract import merged
from modelinscale.spec._mistakes import gather
from modelinscale.spec._source import located, settings_of
from modelinscale.spec._yaml import Mistake, parse
from modelinscale.store import Store
from modelinscale.store.local import Local as LocalStore
from modelinscale.track.lineage import OpenLineage
from modelinscale.train import Train
from modelinscale.tune import Tune, check_space

FILE = "model.yaml"
"""The name looked for in a folder."""

MAX_BYTES = 4 << 20
"""A model.yaml larger than this is not one."""


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Also({"type": "string"})]
"""A column name, or a list of them."""


def _targets(value: Any) -> Any:
    several = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not several or not all(isinstance(one, str) and one for one in several):
        raise SpecError(f"expected a column's name, or a list of names, found {value!r:.60}.", fix="Write `target: price`, or `target: [length, width]`.")
    return several[0] if len(several) == 1 else several


def _short_kinds(folder: str, *more: str) -> dict[str, Any]:
    known = names(folder)
    one = {"anyOf": [{"enum": known}, {"type": "object", "properties": dict.fromkeys([*known, *more], True), "additionalProperties": False}]}
    return {"type": "object", "additionalProperties": {"anyOf": [*one["anyOf"], {"type": "array", "items": one}]}}


class ContractFile(Settings):
    """Where a contract is."""

    file: str = Field(min_length=1)
    """The file, taken from where model.yaml lies."""
    table: str | None = None
    """Which of its tables; needed if it has several."""


def _contract_file(value: Any) -> Any:
    return {"file": value} if isinstance(value, str) else value


class Data(Settings):
    """Where the rows are, what makes them valid, and which of them are held out."""

    source: Annotated[Source, BeforeValidator(settings_of), Also({"type": ["string", "array"], "items": {"type": ["string", "object"]}, "minItems": 1})]
    """A file, a pattern (``rows/*.parquet``) or a list of files, the type told by suffix; or ``{type: ..., ...}``.
    A list of these joins the others to the rows of the first: ``[{type: csv, path: orders.csv}, {type: sql, ..., join: {on: customer_id}}]``."""
    key: Names = ()
    """The column (or columns) that name a row: a second row with the same key goes to quarantine, or with ``write: upsert`` takes the first one's place."""
    write: Literal["append", "upsert"] = "append"
    """``upsert``: a row takes the place of the one with its key, for sources that give a row again when it changed."""
    new_columns: Literal["leave_out", "add"] = "leave_out"
    """What is done with columns that the source did not have when the table was made: ``add`` takes them into the table, missing in the rows before."""
    widen: bool = False
    """Whether a column of whole numbers becomes one with a point when the source now has such numbers; otherwise those rows go to quarantine."""
    time: str | None = None
    """The column that says when a row happened; makes the split a split in time."""
    label_delay: Annotated[Duration, Field(ge=0)] = 0.0
    """How long after a row its label is known: a gap of this length is left between training, validation and test rows."""
    split: Split = Split()
    """Which rows train, which choose (calibration, threshold, early stopping), and which test."""
    columns: dict[str, ColumnType] = {}
    """Types to hold by force where inference would find another: ``{zip: string}``."""
    checks: Annotated[dict[str, tuple[Check, ...]], Also(partial(_short_kinds, Check.folder))] = {}
    """What each column must fulfil (``amount: {between: [0, 1000000]}``, ``card_id: present``); rows that fail go to quarantine."""
    personal: dict[str, Annotated[Rule, BeforeValidator(short), Also({"enum": ["drop", "pseudonym", "mask"]})]] = {}
    """What is done to personal columns before anything is stored: ``{name: drop, card_id: pseudonym, email: mask, age: {type: mask, step: 10}}``."""
    clean: Annotated[dict[str, tuple[Cleaner, ...]], Also(partial(_short_kinds, Cleaner.folder))] = {}
    """What is done to each column's cells before the contract, step by step, at collection and to every row that is asked about
    (``weight: [trim, {units: kg}]``); ``"*"`` means all other text columns."""
    contract: Annotated[ContractFile | None, BeforeValidator(_contract_file), Also({"type": "string"})] = None
    """A contract of the Open Data Contract Standard (``shop.odcs.yaml``): its types, key, checks and personal columns hold where this file says nothing."""
    person: str | None = None
    """The column that says whose row it is: what ``mis forget --key`` looks for. Left out: the key, where that is one column."""
    pseudonym_key: Annotated[tuple[Reference, ...], BeforeValidator(_one_or_many), Also({"type": "string"})] = ()
    """Where the key of pseudonyms is found (``${ENV:MIS_KEY}``); after rotations all of them, the oldest first."""
    follow: Follow = Follow()
    """How ``mis collect --follow`` keeps up: ``{every: 5s, rows: 100000}``."""
    leave_out: Names = ()
    """Columns the model must not see (they stay in the lake)."""

    @model_validator(mode="after")
    def _replacing_needs_a_key(self) -> Self:
        if self.write == "upsert" and not self.key:
            raise SpecError("`write: upsert` replaces rows by key, and `key` is not given.", fix="Name the column that tells rows apart: `key: id`.")
        if self.write != "upsert" and any(other.join.correct for other in getattr(self.source, "others", ())):
            raise SpecError("`correct` brings rows again that are joined anew: they would be there twice.", fix="Write `write: upsert` and `key` under `data`.")
        return self

    @field_validator("checks", mode="before")
    @classmethod
    def _checks(cls, value: Any) -> Any:
        return parse_checks(value) if isinstance(value, dict) else value

    @field_validator("clean", mode="before")
    @classmethod
    def _clean(cls, value: Any) -> Any:
        return parse_cleaners(value) if isinstance(value, dict) else value


def _store(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        scheme, _, rest = value.partition("://")
        bucket, _, prefix = rest.partition("/")
        if scheme not in SCHEMES or not bucket:
            raise SpecError(f"{scheme}:// is no store.", fix="Name a local folder, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix.")
        if "@" in bucket:
            raise SpecError(
                f"a store's address holds no credentials, found them in {scheme}://...",
                fix="Write `{type: " + scheme + ", bucket: ..., access_key: '${ENV:NAME}', ...}`, or leave them to the environment.",
            )
        return {"type": scheme, "bucket": bucket, "prefix": prefix}
    return {"type": "local", "root": value} if isinstance(value, str) and value not in names(Store.folder) else value


class ModelSpec(Settings):
    """The whole of model.yaml."""

    version: Literal[1] = 1
    """The format of this file."""
    name: str = Field("model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What the model is called: in the registry, in the server's addresses. Letters, digits, ``.``, ``_`` and ``-``."""
    data: Data
    """Where the rows are."""
    target: Annotated[str | tuple[str, ...], BeforeValidator(_targets)]
    """The column to predict, or a list of columns that are predicted together: all of them numbers, or all of them flags (``[length, width]``)."""
    positive: Label | None = None
    """For two classes: the one to find. Left out: true, 1, yes, or the rarer of the two."""
    task: TaskType | None = None
    """Left out: told by the target's values (lists of numbers: regression of all of them, lists of words: multilabel). quantiles: instead of a number what
    it stays below with the probabilities ``levels``."""
    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(LEVELS, min_length=2, max_length=99)
    """For ``task: quantiles``: the probabilities, rising, two at least."""
    features: dict[str, Feature] = {}
    """How columns become numbers. Empty: all columns, inferred. Otherwise exactly the columns named."""
    model: Model | Literal["auto"] = Field("auto", union_mode="left_to_right")
    """The family and its hyperparameters, or ``auto``: linear, trees and mlp compared on validation rows within ``train.budget``."""
    train: Train = Train()
    """Budget, seed, weights."""
    tune: Tune | None = None
    """How the best settings are looked for before training (`mis tune`); null: `model` is trained as it is written."""
    evaluate: Evaluate = Evaluate()
    """Metrics, slices, costs, calibration."""
    export: Export = Export()
    """What the package must prove."""
    serve: Serve = Serve()
    """Address and limits of the server."""
    compute: Compute = LocalCompute()
    """Where work runs."""
    lineage: OpenLineage = OpenLineage()
    """Where it is told what came from what (OpenLineage events): a file, a collector; left out: a file in the store."""
    access: Access = Access()
    """Who is shown which columns of stored rows."""
    store: Annotated[Store, BeforeValidator(_store), Also({"type": "string"})] = LocalStore()
    """Where everything lies: a folder, taken from where this file lies."""

    @field_validator("model", mode="before")
    @classmethod
    def _model(cls, value: Any) -> Any:
        return value if value == "auto" else Model.parse(value)

    @field_validator("levels")
    @classmethod
    def _levels_rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(b <= a for a, b in pairwise(value)):
            raise SpecError(f"`levels` must rise, found {list(value)}.", fix="Write them in order, each once: [0.05, 0.5, 0.95].")
        return value

    @model_validator(mode="after")
    def _levels_are_of_quantiles(self) -> Self:
        if self.levels != LEVELS and self.task != "quantiles":
            raise SpecError("`levels` are given, and `task` is not quantiles: they would be ignored.", fix="Write `task: quantiles`, or leave `levels` out.")
        return self

    @model_validator(mode="after")
    def _what_is_tuned_is_searched(self) -> Self:
        if self.tune is not None:
            own = ("linear", "trees", "mlp", "network") if isinstance(self.model, str) else (self.model.type,)
            check_space(self.tune, self.tune.families or own)
        return self

    @model_validator(mode="after")
    def _the_target_is_no_feature(self) -> Self:
        for target in self.targets:
            if target in self.features:
                raise SpecError(f"the target {target!r} is also a feature: the model would see its own answer.", fix=f"Remove {target!r} from `features`.")
            if target in self.data.leave_out:
                raise SpecError(f"the target {target!r} is in `data.leave_out`.", fix="Remove it there.")
        self._several_targets_fit()
        data = self.data
        others = {"data.key": data.key, "data.time": (data.time,), "data.split.column": (data.split.column,), "train.weight": (self.train.weight,)}
        used = [(place, target) for place, columns in others.items() for target in self.targets if target in columns]
        if used:
            raise SpecError(f"the target {used[0][1]!r} is also `{used[0][0]}`.", fix="Name another column there.")
        if self.train.weight in self.features:
            raise SpecError(f"`train.weight` {self.train.weight!r} is also a feature: a weight is not known of a new row.", fix="Remove it from `features`.")
        self._personal_columns_stay_out(others)
        self._fills_tell_nothing()
        both = sorted(set(self.features) & set(self.data.leave_out))
        if both:
            raise SpecError(f"{', '.join(both)}: named in `features` and in `data.leave_out`.", fix="Keep one of the two.")
        return self

    def _several_targets_fit(self) -> None:
        """Raises `SpecError` for several targets with settings of one."""
        if isinstance(self.target, str):
            return
        if len(set(self.target)) < len(self.target):
            raise SpecError(f"`target` names a column twice: {list(self.target)}.", fix="Name each column once.")
        if self.task not in (None, "regression", "multilabel"):
            raise SpecError(
                f"`task: {self.task}` is for one target, and `target` names {len(self.target)}.",
                fix="Predict numbers together (`task: regression`) or flags (`task: multilabel`), and anything else in a model.yaml of its own.",
            )
        if self.positive is not None:
            raise SpecError("`positive` is for one target of two classes, and `target` names several.", fix="Leave `positive` out.")

    def _fills_tell_nothing(self) -> None:
        """Raises `SpecError` where a cell is filled from the target, or from or into a personal column."""
        for name, steps in self.data.clean.items():
            for other in (o for step in steps for o in step.beside):
                if other in self.targets:
                    raise SpecError(f"`data.clean` fills {name!r} from the target: the answer is not known of a new row.", fix="Name another column.")
                personal = [n for n in (name, other) if n in self.data.personal]
                if personal:
                    raise SpecError(
                        f"`data.clean` fills {name!r} from {other!r}, and {personal[0]!r} is in `data.personal`: it would be stored under another name.",
                        fix="Join the two where the data comes from, or leave the fill out.",
                    )

    def _personal_columns_stay_out(self, others: dict[str, Any]) -> None:
        """Raises `SpecError` where a personal column is used as what it will not be any more."""
        data, rules = self.data, self.data.personal
        for target in self.targets:
            if target in rules:
                raise SpecError(f"the target {target!r} is in `data.personal`: answers would tell it.", fix="Predict another column.")
        dropped = {name for name, rule in rules.items() if rule.type == "drop"}
        uses = {"features": tuple(self.features), "data.person": (data.person,), "data.checks": tuple(data.checks), "data.split.group": data.split.group}
        used = [f"`{place}`" for place, names in {**uses, **others}.items() if dropped.intersection(n for n in names if n)]
        if used:
            raise SpecError(f"`data.personal` drops columns that {', '.join(used)} names.", fix="Use `pseudonym` there, or name other columns.")
        if any(rule.type == "pseudonym" for rule in rules.values()) and not data.pseudonym_key:
            raise SpecError(
                "`data.personal` asks for pseudonyms, and `data.pseudonym_key` is missing.",
                fix="Write `pseudonym_key: ${ENV:MIS_KEY}` under `data`, and make a key with `openssl rand -hex 32`.",
            )
        for place, columns in (("data.person", (data.person,)), ("data.key", data.key)):
            masked = [name for name in columns if name in rules and rules[name].type == "mask"]
            if masked:
                raise SpecError(f"`{place}` {masked[0]!r} is masked: many rows share a masked value.", fix="Use `pseudonym`.")

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict, also where it is one."""
        return names_of(self.target)

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The columns whose cells training and evaluation look at, each once, besides features that are inferred."""
        data, split = self.data, self.data.split
        found = [*self.targets, *self.features, *data.key, *self.evaluate.slices, *self.evaluate.cost_columns, *split.group]
        found += [name for name in (data.time, split.column, self.train.weight) if name]
        return tuple(dict.fromkeys(found))

    def source_at(self, base: Path) -> Source:
        """The source with relative paths taken from ``base``, the folder of the file; what it holds in memory is within the budget of `compute`."""
        settings, budget = located(self.data.source.plain(), base), self.compute.memory
        if settings["type"] in ("joined", "sequences") and budget:
            settings["memory"] = max(1 << 16, min(settings["memory"], budget // 4))
        return Source.parse(settings)

    def model_at(self, base: Path) -> "Model | Literal['auto']":
        """The model, with weights learned elsewhere taken from ``base``."""
        if isinstance(self.model, str):
            return self.model
        written = {name: value for name, value in self.model.plain().items() if name == "type" or name in self.model.model_fields_set}
        return Model.parse(elsewhere.located(written, base))  # what the file leaves open stays open: a search may choose it

    def store_at(self, base: Path) -> Store:
        """The store with relative folders taken from ``base``."""
        settings = anchored(self.store.plain(), base)
        return Store.parse({**settings, **{name: str(base / settings[name]) for name in ("root", "cache") if name in settings}})


def find(path: Path | str | None = None) -> Path:
    """The model.yaml meant by ``path``: a file, a folder that holds one, or (None) the present folder. Raises `SpecError` if there is none."""
    asked = Path(path) if path is not None else Path()
    file = asked / FILE if asked.is_dir() else asked
    if not file.is_file():
        others = [p.name for p in sorted(file.parent.glob("*.y*ml"))][:5] if file.parent.is_dir() else []
        near = did_you_mean(file.name, tuple(others)) or (f" There: {', '.join(others)}." if others else "")
        raise SpecError(f"there is no {file}.{near}", fix="Write one with `mis init DATA --target COLUMN`, or name it with `--file`.")
    return file


def load(path: Path | str | None = None) -> ModelSpec:
    """Reads a model.yaml. Raises `SpecError` that lists every mistake with line, column and what to do."""
    file = find(path)
    try:
        content = file.read_bytes()
        if len(content) > MAX_BYTES:
            raise SpecError(f"{file}: {len(content)} bytes are too many for a model.yaml.", fix="Is this a data file? Use `mis init` on it.")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SpecError(f"{file}: line {line} is not UTF-8 (byte 0x{content[error.start]:02x}).", fix="Save the file as UTF-8.") from error
    except OSError as error:
        raise SpecError(f"{file} cannot be read: {error.strerror}.", fix="Check the path and the rights.") from error
    return loads(text, str(file), file.absolute().parent)


def loads(text: str, where: str = FILE, base: Path | None = None) -> ModelSpec:
    """A model.yaml from its text; ``where`` names it in messages, ``base`` is its folder. Raises `SpecError` listing every mistake."""
    try:
        document = parse(text)
    except SpecError as error:
        raise SpecError(f"{where}: {error.message}", fix=error.fix) from error
    if document.data is None:
        raise SpecError(f"{where} is empty.", fix="Write one with `mis init DATA --target COLUMN`.")
    if not isinstance(document.data, dict):
        kind = type(document.data).__name__
        raise SpecError(f"{where}: expected keys such as `data:` and `target:`, found a {kind}.", fix="Write one with `mis init DATA --target COLUMN`.")
    try:
        spec = ModelSpec.model_validate(document.data if base is None else merged(document.data, base))
    except ValidationError as error:
        raise _refused(where, [*document.mistakes, *gather(error, document, ModelSpec)]) from error
    if document.mistakes:
        raise _refused(where, document.mistakes)
    return spec


def _refused(where: str, mistakes: list[Mistake]) -> SpecError:
    ordered = sorted(dict.fromkeys(mistakes), key=lambda m: (m.line, m.column))
    if len(ordered) == 1:
        one = ordered[0]
        place = f":{one.line}:{one.column}" if one.line else ""
        name = f"{one.path}: " if one.path else ""
        return SpecError(f"{where}{place}: {name}{one.message}", fix=one.fix)
    lines = "\n".join(f"  {m}" for m in ordered)
    return SpecError(f"{where} has {len(ordered)} mistakes:\n{lines}")


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of model.yaml for editors: completion, help and checks while typing."""
    schema = ModelSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "model.yaml of Model In Scale"
    return schema
