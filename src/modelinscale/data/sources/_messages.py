"""Messages of a stream as rows: each holds a JSON object, and what the broker knows of it goes into columns where asked."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from modelinscale.core.errors import NothingYet, SourceError, SpecError, did_you_mean
from modelinscale.core.logs import log
from modelinscale.core.schema import Column, ColumnType, Schema
from modelinscale.core.units import Duration, Size
from modelinscale.data.arrow import BROKEN, INTERNAL, arrow_type
from modelinscale.data.sources import Source
from modelinscale.data.sources._files import Names, check_left_out
from modelinscale.data.sources._json import SHOWN_CHARS, Row, column, decode, decode_lines, refuse_names

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE_ROWS = 2000
"""Messages that tell the columns and their types: half of them the oldest, half the newest."""
TICK_S = 0.25
"""How long a follower waits for messages before it says that nothing is there now."""

PlainType = Literal["int", "float", "bool", "string", "time"]
About = Mapping[str, Sequence[Any]]
"""What the broker knows of some messages, one value a message, by the words of `Stream.also`."""


class Stream(Source):
    """What sources of messages share."""

    about: ClassVar[dict[str, ColumnType]] = {}
    """What the broker knows of a message, and the type of the column it makes."""

    declared: dict[str, PlainType] = Field({}, alias="columns")
    """The fields to read and their types. Left out: told by a sample of the messages, of which there must be some."""
    without: Names = ()
    """Columns to leave out."""
    also: dict[str, str] = {}
    """Columns made of what the broker knows of a message, by name: ``{timestamp: sent_at}``."""
    start: Literal["earliest", "latest"] = "earliest"
    """Where the first collect begins: with the oldest message there is, or with those that come after it has looked."""
    on_gap: Literal["stop", "go_on"] = "stop"
    """When the broker removed messages that were not read yet: an error that says how many, or a warning that does, and on with those there are."""
    rows: int = Field(10_000, ge=1, le=1_000_000)
    """Messages in a chunk, at most."""
    size: Annotated[Size, Field(ge=1024)] = Field(8 << 20, alias="bytes")
    """Bytes of messages after which a chunk is closed."""
    timeout: Annotated[Duration, Field(gt=0, le=3600)] = 30.0
    """How long the broker may stay silent before that is an error."""

    @model_validator(mode="after")
    def _columns_differ(self) -> Self:
        unknown = [word for word in self.also if word not in self.about]
        if unknown:
            raise SpecError(f"`also` knows nothing called {unknown[0]!r}.{did_you_mean(unknown[0], tuple(self.about))}", fix=f"Known: {', '.join(self.about)}.")
        names = [*self.also.values(), *self.declared]
        wrong = sorted({n for n in names if names.count(n) > 1 or not n or n.startswith(INTERNAL)})
        if wrong:
            raise SpecError(f"these names cannot be columns, or are used twice: {', '.join(map(repr, wrong))}.", fix="Give every column a name of its own.")
        return self

    @abstractmethod
    def _sampled(self) -> "tuple[list[Row], About, str]":
        """Some good rows, what is known of them, and why others are broken if some are; moves no place in the stream."""

    @abstractmethod
    def _name(self) -> str:
        """The stream, for messages."""

    def columns(self) -> Schema:
        """The declared columns, or the fields of a sample. Raises `SourceError` when there is no message to tell them."""
        from modelinscale.data.infer import infer

        if not self.declared:
            return infer(self._sample())
        fields = [Column(name=n, type=t) for n, t in self.declared.items() if n not in self.without]
        return Schema(columns=(*fields, *(Column(name=n, type=self.about[w]) for w, n in self.also.items())))

    def sample(self) -> "pa.Table | None":
        return None if self.declared else self._sample()

    def _sample(self) -> "pa.Table":
        import pyarrow as pa

        rows, about, why = self._sampled()
        if not rows:
            words = f"none of the messages looked at can be read: {why}" if why else "there is no message yet to tell the columns"
            kind = SourceError if why else NothingYet
            raise kind(f"{self._name()}: {words}.", fix="Send JSON objects, or declare `columns: {name: type}` under the source.")
        names = list(dict.fromkeys(name for row in rows for name in row))
        refuse_names(names, self._name())
        twice = [n for n in self.also.values() if n in names]
        if twice:
            raise SourceError(f"{self._name()}: messages have a field {twice[0]!r} already.", fix="Give the column another name in `also`.")
        check_left_out(self.without, names, self._name())
        fields = {n: column(rows, n, None) for n in names if n not in self.without}
        return pa.table(fields | {n: self._known(word, about[word]) for word, n in self.also.items()})

    def _batch(self, schema: Schema, rows: list[Row], broken: Mapping[int, str], about: About) -> "pa.RecordBatch":
        """The rows with exactly the columns asked for; a broken one is all null but for the reason."""
        import pyarrow as pa

        words = {name: word for word, name in self.also.items()}
        arrays, names = [], list(schema.names)
        for wanted in schema.columns:
            if wanted.name in words:
                values = about[words[wanted.name]]
                arrays.append(self._known(words[wanted.name], [None if i in broken else v for i, v in enumerate(values)] if broken else values))
            else:
                arrays.append(column(rows, wanted.name, wanted))
        if broken:
            arrays.append(pa.array([broken.get(i) for i in range(len(rows))], pa.string()))
            names.append(BROKEN)
        return pa.record_batch(arrays, names=names)

    def _known(self, word: str, values: Sequence[Any]) -> "pa.Array":
        import pyarrow as pa

        return pa.array(values, arrow_type(Column(name=word, type=self.about[word])))

    def _lost(self, n_lost: int, where: str) -> None:
        """Messages are gone that were never read: an error, or a warning where the user said so."""
        what = f"{where}: up to {n_lost:,} messages were removed before they were read"
        if self.on_gap == "stop":
            raise SourceError(
                f"{what}: the broker keeps them for less time than passes between collects, or the collect stood still.",
                fix="Raise the broker's retention or collect more often; to go on with the messages there are, set `on_gap: go_on` under the source.",
            )
        log(__name__).warning("messages lost", extra={"where": where, "lost": n_lost})


def from_the_first(source: Source) -> Source:
    """A source that was empty when it was first looked at: whatever it has now came after that, so ``start: latest`` means all of it."""
    return source.but(start="earliest") if isinstance(source, Stream) else source


def rows_of(values: Sequence[bytes | None], place: Callable[[int], str]) -> tuple[list[Row], dict[int, str]]:
    """The JSON object of each message, {} for a broken one, and why those are broken; ``place`` names the i-th message."""
    present = [v or b"" for v in values]
    block = b"\n".join(present)
    # As many line ends as there are between messages, and as many objects as messages: then no message holds two or none.
    if block.count(b"\n") == len(present) - 1:
        rows = decode_lines(block)
        if rows is not None and len(rows) == len(present):
            return rows, {}
    good, why = decode(present)
    reasons = {}
    for i, reason in why.items():
        if values[i] is None:
            reasons[i] = f"a message without a value (a tombstone): {place(i)}"
        else:
            reasons[i] = f"{reason if present[i] else 'an empty message'}: {place(i)}: {present[i][:SHOWN_CHARS].decode('utf-8', 'replace').strip()}"
    return good, reasons
