"""The demo: the whole way once, from a made-up bank's payments to a server that is asked over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from modelinscale import spec
from modelinscale.api import Progress, Project
from modelinscale.core.clock import Stopwatch
from modelinscale.core.errors import MisError, UsageError
from modelinscale.core.files import write_bytes
from modelinscale.data.sources.simulator import Simulator

if TYPE_CHECKING:
    import pyarrow as pa

    from modelinscale.pipeline import Outcome

TEMPLATE = "demo.yaml"
"""The demo's model.yaml inside the installed package; equal to examples/fraud/model.yaml."""

START_S = 60.0
"""How long the server may take until it is ready."""
STOP_S = 30.0
"""How long it may take to stop."""
ROWS_A_REQUEST = 500
_DAYS = re.compile(r"(?<=\bdays: )\d+")


@dataclass(frozen=True)
class Begun:
    """The project the demo works in."""

    file: Path
    days: int
    """Days simulated."""
    state: Literal["written", "changed", "found"]
    """Whether model.yaml is new, was there with another number of days, or was there as it is."""


@dataclass(frozen=True)
class Built:
    """What the pipeline made."""

    outcome: Outcome
    quarantined: dict[str, int]
    """Column and reason, and how many rows were kept out for it."""
    seconds: float


@dataclass(frozen=True)
class Started:
    """A server that takes requests."""

    address: str
    seconds: float
    """From its start until it was ready."""


@dataclass(frozen=True)
class Payment:
    """A payment the server was asked about, and what turned out a week later."""

    payment_id: str
    paid_at: str
    amount: float
    category: str
    place: str
    """The town, or ``online``."""
    probability: float
    """Of fraud, as the server answered."""
    stopped: bool
    """The server's decision."""
    fraud: bool
    """The truth."""


@dataclass(frozen=True)
class Asked:
    """The newest week of payments, whose labels nobody knows yet, as the server judged them."""

    some: tuple[Payment, ...]
    n_payments: int
    n_frauds: int
    n_caught: int
    n_false_alarms: int
    amount_frauds: float
    amount_caught: float
    seconds: float
    """For all requests together, one after the other."""


@dataclass(frozen=True)
class Refused:
    """A request with a mistake in it, and the answer."""

    sent: dict[str, Any]
    status: int
    error: dict[str, Any]


@dataclass(frozen=True)
class Stopped:
    """The server's own counts shortly before it was told to stop, and how it ended."""

    metrics: tuple[str, ...]
    """Lines of ``/metrics``."""
    exit_code: int


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    table: str
    quarantine: str
    package: str
    card: str
    registry: str


Stage = Begun | Built | Started | Asked | Refused | Stopped | Places
_S = TypeVar("_S", bound=Stage)


@dataclass(frozen=True)
class Demo:
    """All that the demo did."""

    begun: Begun
    built: Built
    started: Started
    asked: Asked
    refused: Refused
    stopped: Stopped
    places: Places
    seconds: float

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        rest = {name: asdict(getattr(self, name)) for name in ("begun", "started", "asked", "refused", "stopped", "places")}
        return {**rest, "built": {**self.built.outcome.plain(), "quarantined": self.built.quarantined, "seconds": self.built.seconds}, "seconds": self.seconds}


def _silent() -> AbstractContextManager[Progress]:
    return nullcontext(lambda step, share, note: None)


def demo(
    folder: Path,
    *,
    days: int | None = None,
    progress: Callable[[], AbstractContextManager[Progress]] = _silent,
    tell: Callable[[Stage], None] = lambda stage: None,
) -> Demo:
    """Goes the whole way once in ``folder``; what is done already is not done again.

    ``days`` of payments are simulated (None: as the folder's model.yaml says, 120 for a new one). ``progress`` opens what the pipeline reports to;
    ``tell`` is called with each stage once it is done. Raises `UsageError` when the folder holds something else.
    """
    watch = Stopwatch()

    def told(stage: _S) -> _S:
        tell(stage)
        return stage

    begun = told(_begin(folder, days))
    project = Project(begun.file)
    step = Stopwatch()
    with progress() as report:
        outcome = project.run(progress=report)
    quarantined = {f"{r['column']}: {r['reason']}": r["n"] for r in project.describe("quarantine").facts["reasons"]}
    built = told(Built(outcome, quarantined, round(step.seconds(), 1)))
    newest = _newest(project)
    with _served(begun.file, folder / "server.log") as (process, started):
        told(started)
        asked = told(_ask(project, started.address, newest))
        refused = told(_err(project, started.address, newest))
        metrics = tuple(line for line in _get(started.address, "/metrics").splitlines() if line.startswith(("mis_rows_total", "mis_requests_total")))
        stopped = told(Stopped(metrics, _stop(process)))
    places = told(_places(project, outcome))
    return Demo(begun, built, started, asked, refused, stopped, places, round(watch.seconds(), 1))


def _begin(folder: Path, days: int | None) -> Begun:
    """Writes the demo's model.yaml, or goes on with the one that is there."""
    file = folder / "model.yaml"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file.", fix="Name a folder for the demo: `mis demo FOLDER`.")
    template = (files("modelinscale") / TEMPLATE).read_text(encoding="utf-8")
    new = not file.exists()
    text = template if new else file.read_text(encoding="utf-8")
    asked = spec.loads(text, str(file))
    source = asked.data.source
    if not isinstance(source, Simulator) or asked.target != "is_fraud":
        what = f"it predicts {asked.target} from a source of type {source.type}"
        raise UsageError(f"{file} is not the demo's: {what}.", fix="Name another folder: `mis demo FOLDER`.")
    before, after = source.days, days or source.days
    changed, n = _DAYS.subn(str(after), text)
    if after != before and n != 1:
        raise UsageError(f"{file} does not say `days: {before}` in one place.", fix="Change the number of days there, and leave out --days.")
    if new or after != before:
        write_bytes(file, changed.encode())
    return Begun(file, after, "written" if new else "found" if after == before else "changed")


def _newest(project: Project) -> pa.Table:
    """The payments of the last days with the labels they will have in a week, which the model has never seen."""
    source = project.spec.source_at(project.base)
    assert isinstance(source, Simulator), "_begin looked for one"
    return source.unsettled()


@contextmanager
def _served(file: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], Started]]:
    """A server of the champion as a process of its own on a free port, ready; it ends with the block, however that ends."""
    watch = Stopwatch()
    command = [sys.executable, "-m", "modelinscale.cli", "serve", "--file", str(file), "--port", "0", "--json"]
    with log.open("w", encoding="utf-8") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_S)
            line = process.stdout.readline() if ready else ""
            if not line:
                why = log.read_text(encoding="utf-8").strip()[-600:] or f"it said nothing for {START_S:.0f} s"
                raise MisError(f"the server did not start: {why}", fix=f"Its messages are in {log}; start it by hand with `mis serve -f {file}`.")
            yield process, Started(json.loads(line)["address"], round(watch.seconds(), 2))
        finally:
            if process.poll() is None:
                process.kill()


def _stop(process: subprocess.Popen[str]) -> int:
    """Asks the server to stop and waits; its exit code."""
    process.terminate()
    try:
        return process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        raise MisError(f"the server did not stop within {STOP_S:.0f} s.", fix="This is a fault of ours: please report it.") from None


def _ask(project: Project, address: str, newest: pa.Table) -> Asked:
    """Every one of the newest payments through the server, and a closer look at some."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = _bodies(project, newest)
    watch = Stopwatch()
    answers: list[dict[str, Any]] = []
    with _connected(address) as connection:
        for start in range(0, len(rows), ROWS_A_REQUEST):
            status, body = _post(connection, rows[start : start + ROWS_A_REQUEST])
            if status != 200:
                raise MisError(f"the server refused payments with status {status}: {body}", fix="This is a fault of ours: please report it.")
            answers += body["predictions"]
    seconds = round(watch.seconds(), 2)
    stopped = pa.array([bool(a["prediction"]) for a in answers])
    fraud, amount = newest["is_fraud"].combine_chunks(), newest["amount"]
    caught = pc.and_(stopped, fraud)

    def payment(i: int) -> Payment:
        row = newest.slice(i, 1).to_pylist()[0]
        return Payment(
            payment_id=row["payment_id"],
            paid_at=row["paid_at"].isoformat(sep=" ", timespec="seconds"),
            amount=row["amount"],
            category=row["category"],
            place=row["place"] or "online",
            probability=answers[i]["probabilities"]["true"],
            stopped=bool(answers[i]["prediction"]),
            fraud=row["is_fraud"],
        )

    return Asked(
        some=tuple(payment(i) for i in _some(newest)),
        n_payments=len(newest),
        n_frauds=pc.sum(fraud).as_py(),
        n_caught=pc.sum(caught).as_py(),
        n_false_alarms=pc.sum(pc.and_(stopped, pc.invert(fraud))).as_py(),
        amount_frauds=round(pc.sum(amount.filter(fraud)).as_py() or 0.0, 2),
        amount_caught=round(pc.sum(amount.filter(caught)).as_py() or 0.0, 2),
        seconds=seconds,
    )


def _some(newest: pa.Table) -> list[int]:
    """A handful to look at, whatever the answers: the last five payments, the largest honest one, and the last frauds on five different cards."""
    import numpy as np

    fraud = newest["is_fraud"].to_numpy()
    amount = newest["amount"].to_numpy()
    cards = newest["card_id"].to_pylist()
    last_of_card = {cards[i]: int(i) for i in np.flatnonzero(fraud)}
    largest = int(np.argmax(np.where(fraud, 0.0, amount)))
    return sorted({*range(len(newest) - 5, len(newest)), largest, *sorted(last_of_card.values())[-5:]})


def _err(project: Project, address: str, newest: pa.Table) -> Refused:
    """A request with a mistake, as clients make them."""
    row = {**_bodies(project, newest.slice(0, 1))[0], "amount": "twelve"}
    with _connected(address) as connection:
        status, body = _post(connection, [row])
    return Refused({"amount": "twelve"}, status, body.get("error", body))


def _bodies(project: Project, payments: pa.Table) -> list[dict[str, Any]]:
    """Payments as JSON rows with exactly the columns the model reads."""
    import pyarrow as pa

    wanted = payments.select([i.name for i in project.package().inputs])
    for at, field in enumerate(wanted.schema):
        if pa.types.is_timestamp(field.type):
            wanted = wanted.set_column(at, field.name, wanted.column(at).cast(pa.timestamp("s")).cast(pa.string()))
    rows: list[dict[str, Any]] = wanted.to_pylist()
    return rows


@contextmanager
def _connected(address: str) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def _post(connection: http.client.HTTPConnection, rows: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, Any]]:
    connection.request("POST", "/predict", json.dumps({"rows": rows}), {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def _get(address: str, path: str) -> str:
    with _connected(address) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def _places(project: Project, outcome: Outcome) -> Places:
    from modelinscale.pipeline._collect import quarantine_name

    lake = project.describe("lake").facts
    package = outcome.package or project.package_folder()
    return Places(
        table=lake["uri"],
        quarantine=str(Path(lake["uri"]).with_name(quarantine_name(lake["table"]))),
        package=str(package),
        card=str(package / "card.md"),
        registry=str(project.spec.store_at(project.base).path("track")),
    )
