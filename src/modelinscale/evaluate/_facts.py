"""What an evaluation found, as plain data that goes into the card, the manifest and `--json`."""

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
    notes: tuple[str, ...] = ()
    """What a reader must know, in sentences."""
