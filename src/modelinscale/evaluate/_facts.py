"""What an evaluation found, as plain data that goes into the card, the manifest and `--json`."""

from typing import Literal

from modelinscale.core.settings import Settings
from modelinscale.core.task import Label


class Estimate(Settings):
    """A number and how sure it is."""

    value: float | None
    """None: not defined on these rows."""
    low: float | None = None
    """Lower end of the interval; None: too few rows to say."""
    high: float | None = None
    """Upper end of the interval."""


class Slice(Settings):
    """The main metric on the rows that share something."""

    column: str
    """The column."""
    value: str
    """Its value, or a range of values, in words."""
    n_rows: int
    """Test rows in it."""
    main: Estimate
    """The main metric on them."""
    worse: bool = False
    """Whether that is worse than on all rows by more than chance explains, counting how many slices were looked at."""


class Bin(Settings):
    """Rows with about the same answer: what was said, and what came."""

    n_rows: int
    """Rows in the bin."""
    said: float
    """Mean probability (of the positive class; of many: of the most likely one), or mean number."""
    came: float
    """Share that came true, or mean truth."""
    low: float | None = None
    """Lower end of what came, given how few rows there are."""
    high: float | None = None
    """Upper end of it."""


class Confusion(Settings):
    """Rows by truth and decision."""

    labels: tuple[Label, ...]
    """Classes in order."""
    counts: tuple[tuple[int, ...], ...]
    """(truth, decision): numbers of rows, not weighted."""


class Operating(Settings):
    """What another threshold would give on the test rows, weighted."""

    threshold: float
    """Probability above which a row is called positive."""
    called: float
    """Share of rows called positive."""
    precision: float | None
    """Share of right ones among them."""
    recall: float | None
    """Share of the positive rows found."""
    cost: float
    """Mean cost of a row."""


class CostFacts(Settings):
    """Mean cost of a row, in the user's unit."""

    model: Estimate
    """With the chosen threshold."""
    always_no: float
    """If every row were called negative."""
    always_yes: float
    """If every row were called positive."""
    saving: Estimate
    """What the model saves a row against the cheaper of these two."""


class Covered(Settings):
    """How often sets or intervals held the truth, on the rows that share something."""

    column: str
    """The column."""
    value: str
    """Its value, or a range of values, in words."""
    n_rows: int
    """Test rows in it."""
    covered: Estimate
    """Share of them whose set or interval holds the truth."""
    mean_size: float | None
    """Mean number of classes in a set, or mean width of an interval; None: without end."""
    short: bool = False
    """Whether that is less than was asked by more than chance explains."""


class Abstention(Settings):
    """What it brings to leave the least sure rows to somebody else."""

    error: float
    """Share of wrong decisions on all test rows."""
    points: tuple[tuple[float, float], ...]
    """(share of the rows left out, share of wrong decisions on the others)."""
    sureness: float | None
    """The border that halves the errors on the validation rows: of two classes logits between probability and threshold, of more the largest probability."""
    share: float | None
    """Share of the test rows below that border."""
    error_left: float | None
    """Share of wrong decisions on those above it."""


class Conformal(Settings):
    """Sets of classes or intervals of numbers, made wide enough on validation rows, tried on test rows."""

    method: Literal["lac", "aps", "raps", "residual", "levels"]
    """How a set grows (see `Evaluate.sets`); residual: an interval about the answer; levels: from the lowest quantile to the highest."""
    by_class: bool
    """Whether each class (numbers: each fifth of the answers) has a limit of its own."""
    coverage: float
    """How often the truth was asked to be inside."""
    n_valid: int
    """Validation rows the limits come from."""
    limits: tuple[float | None, ...]
    """The limit of all rows, or of each class or fifth; None: too few validation rows to set one, so everything is inside."""
    edges: tuple[float, ...] = ()
    """Answers at which one fifth ends and the next begins."""
    covered: Estimate
    """Share of test rows whose truth is inside."""
    mean_size: float | None
    """Mean number of classes in a set, or mean width of an interval; None: without end."""
    sizes: tuple[int, ...] = ()
    """Classes: number of test rows by the size of their set, from 0."""
    single_error: float | None = None
    """Share of wrong decisions where the set holds one class."""
    slices: tuple[Covered, ...] = ()
    """The same by slice, and by true class."""
    abstention: Abstention | None = None
    """Classes: what leaving out unsure rows saves."""


class Evaluation(Settings):
    """How good a model is on test rows."""

    main: str
    """The metric that counts most."""
    n_rows: int
    """Test rows."""
    confidence: float
    """How often the intervals should cover the true value."""
    metrics: dict[str, Estimate]
    """By name, the main one first."""
    baselines: dict[str, dict[str, Estimate]]
    """The same metrics for the baselines."""
    differences: dict[str, dict[str, Estimate]]
    """Model minus baseline, on the same resamples: an interval without 0 in it is a difference that is no accident."""
    targets: dict[str, dict[str, Estimate]] = {}
    """Several target columns of numbers: the metrics of each by itself."""
    slices: tuple[Slice, ...] = ()
    """The main metric by slice, the worst first."""
    confusion: Confusion | None = None
    """Rows by truth and decision, for up to 100 classes."""
    reliability: tuple[Bin, ...] = ()
    """What was said against what came, in bins of about equal weight."""
    threshold: float | None = None
    """Two classes: the threshold in use."""
    thresholds: tuple[Operating, ...] = ()
    """Two classes: what others would give."""
    cost: CostFacts | None = None
    """Two classes: what wrong decisions cost."""
    residuals: dict[str, float] | None = None
    """Regression: quantiles of truth minus answer, by share (``0.05``)."""
    conformal: Conformal | None = None
    """Sets or intervals that hold the truth as often as asked; None: not asked for, or too few validation rows."""
    notes: tuple[str, ...] = ()
    """What a reader must know, in sentences."""
